//! What happened, kept for a while, for whoever asks or watches.
//!
//! [`history`] keeps the latest entries; it is the only buffer there is, so that a watcher costs a place in it and no
//! memory of its own, however slowly it reads. [`Feed`] is the writer's end and [`Watcher`] a reader's; both live on the
//! main thread, so that the lock between them is never waited for.

pub mod history;
pub mod parts;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use history::{History, Since};

/// Entries handed on at once: a reader that has fallen behind catches up in few steps of bounded size.
const MOST_AT_ONCE: usize = 64;

/// The writer's end. Watchers end when it is dropped.
#[derive(Debug)]
pub struct Feed<T> {
    history: Arc<Mutex<History<T>>>,
    told: watch::Sender<()>,
}

/// A reader with its place in the history.
#[derive(Debug)]
pub struct Watcher<T> {
    history: Arc<Mutex<History<T>>>,
    told: watch::Receiver<()>,
    place: u64,
}

impl<T: Clone> Feed<T> {
    /// Keeps the latest `most` entries.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { history: Arc::new(Mutex::new(History::new(most))), told: watch::Sender::new(()) }
    }

    /// Adds an entry; `make` gets its number.
    pub fn push(&self, make: impl FnOnce(u64) -> T) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push(make);
        self.told.send_replace(());
    }

    /// What is kept, oldest first.
    #[must_use]
    pub fn kept(&self) -> Vec<T> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).kept().cloned().collect()
    }

    /// Reads what is kept, then what comes.
    #[must_use]
    pub fn watch_kept(&self) -> Watcher<T> {
        self.watch(History::first)
    }

    /// Reads what comes.
    #[must_use]
    pub fn watch_new(&self) -> Watcher<T> {
        self.watch(History::next)
    }

    fn watch(&self, place: fn(&History<T>) -> u64) -> Watcher<T> {
        let place = place(&self.history.lock().unwrap_or_else(PoisonError::into_inner));
        Watcher { history: Arc::clone(&self.history), told: self.told.subscribe(), place }
    }
}

impl<T> Watcher<T> {
    /// Number of the entry that comes next.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.place
    }
}

impl<T: Clone> Watcher<T> {
    /// The next entries, once there are any. Nothing when there will be none any more.
    pub async fn next(&mut self) -> Option<Since<T>> {
        loop {
            // Before the look, so that nothing comes unseen between both.
            self.told.mark_unchanged();
            let since = self.history.lock().unwrap_or_else(PoisonError::into_inner).since(self.place, MOST_AT_ONCE);
            let taken = match &since {
                Since::Entries(entries) => entries.len() as u64,
                Since::Missed(missed) => *missed,
            };
            if taken > 0 {
                self.place += taken;
                return Some(since);
            }
            self.told.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_sees_everything_in_order_and_then_the_end() {
        let feed = Feed::new(200);
        (0..100).for_each(|_| feed.push(|number| number));
        let (mut whole, mut new) = (feed.watch_kept(), feed.watch_new());
        feed.push(|number| number);
        let mut seen = Vec::new();
        while seen.len() < 101 {
            let Some(Since::Entries(entries)) = whole.next().await else { panic!("entries") };
            assert!(entries.len() <= MOST_AT_ONCE);
            seen.extend(entries);
        }
        assert!(seen.iter().copied().eq(0..=100));
        assert_eq!(new.next().await, Some(Since::Entries(vec![100])));
        feed.push(|number| number);
        drop(feed);
        assert_eq!(new.next().await, Some(Since::Entries(vec![101])), "what was said before the end is still heard");
        assert_eq!(new.next().await, None);
    }

    #[tokio::test]
    async fn a_watcher_that_sleeps_through_the_history_is_told_how_much_it_missed() {
        let feed = Feed::new(4);
        let mut watcher = feed.watch_new();
        (0..10).for_each(|_| feed.push(|number| number));
        assert_eq!(watcher.next().await, Some(Since::Missed(6)));
        assert_eq!(watcher.next().await, Some(Since::Entries(vec![6, 7, 8, 9])));
    }

    #[tokio::test]
    async fn a_waiting_watcher_is_woken() {
        let feed = Feed::new(4);
        let mut watcher = feed.watch_new();
        let waiting = tokio::spawn(async move { watcher.next().await });
        tokio::task::yield_now().await;
        feed.push(|number| number);
        assert_eq!(waiting.await.expect("it ends"), Some(Since::Entries(vec![0])));
    }
}
