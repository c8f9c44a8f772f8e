//! Events and leases: as they are, or with `?watch` as a stream of lines that goes on while both sides want.
//!
//! A stream is written as fast as its reader reads and holds one batch of lines at a time. Who falls behind what the
//! node keeps is told so and cut off. A reader holds one of few slots until it hangs up.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use meshwork_api::event::{Event, Events, Happening, PodChange};
use meshwork_api::model::{API_VERSION, Leases};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Services;
use super::errors::ApiError;
use crate::events::Watcher;
use crate::events::history::Since;

/// Readers at once: a policy controller, a DNS server, and people.
const MOST_READERS: usize = 32;

/// Room for readers of streams.
#[derive(Clone)]
pub struct Slots(Arc<Semaphore>);

impl Default for Slots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_READERS)))
    }
}

impl Slots {
    fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_watchers",
                format!("{MOST_READERS} readers watch already"),
                "end one of them, or ask without `?watch`",
            )
        })
    }
}

/// `GET /v1/events`
pub(super) async fn events(State(services): State<Services>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    if !watches(query.as_deref()) {
        let events = services.node.ask(|node| node.events()).await?;
        return Ok(Json(Events { api: API_VERSION, events }).into_response());
    }
    let slot = services.streams.take()?;
    let (clock, watcher) = services.node.ask(|node| node.watch_events()).await?;
    let missed = move |next, missed| -> Event {
        let reason = format!("{missed} events came faster than they were read: ask anew");
        clock.event(next, Happening::Missed { missed }, "this stream", &reason)
    };
    Ok(lines(Vec::new(), watcher, missed, slot))
}

/// `GET /v1/pods`
pub(super) async fn pods(State(services): State<Services>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    if !watches(query.as_deref()) {
        let leases = services.node.ask(|node| node.leases()).await?;
        return Ok(Json(Leases { api: API_VERSION, leases }).into_response());
    }
    let slot = services.streams.take()?;
    let (leases, watcher) = services.node.ask(|node| node.watch_pods()).await?;
    let present = leases.into_iter().map(|lease| PodChange::Added { lease });
    let present = present.chain([PodChange::Synced]).collect();
    Ok(lines(present, watcher, |_, missed| PodChange::Missed { missed }, slot))
}

/// `?watch`, whatever it is set to but for a no.
pub(super) fn watches(query: Option<&str>) -> bool {
    let asked = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key == "watch" && !matches!(value, "0" | "false" | "no")
    };
    query.unwrap_or_default().split('&').any(asked)
}

/// A stream that begins with `first`. `missed` makes the last line for a reader that is too slow, from the number that
/// the next entry has and the count of those that are gone.
fn lines<T: Clone + Serialize + Send + 'static>(
    first: Vec<T>,
    watcher: Watcher<T>,
    missed: impl Fn(u64, u64) -> T + Send + 'static,
    slot: OwnedSemaphorePermit,
) -> Response {
    let first = Some(first).filter(|first| !first.is_empty());
    let stream = unfold((first, Some(watcher), missed, slot), |(first, watcher, missed, slot)| async move {
        let mut watcher = watcher?;
        let (entries, goes_on) = match first {
            Some(first) => (first, true),
            None => match watcher.next().await? {
                Since::Entries(entries) => (entries, true),
                Since::Missed(count) => (vec![missed(watcher.place(), count)], false),
            },
        };
        let chunk = Ok::<_, Infallible>(written(&entries));
        Some((chunk, (None, goes_on.then_some(watcher), missed, slot)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

fn written<T: Serialize>(entries: &[T]) -> Bytes {
    let mut text = Vec::new();
    for entry in entries {
        // Our own models have no keys that JSON does not.
        if serde_json::to_writer(&mut text, entry).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::events::Feed;

    #[test]
    fn a_query_watches_unless_it_says_no() {
        for query in ["watch", "watch=", "watch=true", "watch=1", "a=b&watch"] {
            assert!(watches(Some(query)), "{query}");
        }
        for query in [None, Some(""), Some("watch=false"), Some("watch=0"), Some("watchers"), Some("a=watch")] {
            assert!(!watches(query), "{query:?}");
        }
    }

    /// What a reader gets that comes when `feed` has ended.
    async fn read(first: Vec<u64>, watcher: Watcher<u64>) -> String {
        let slot = Slots::default().take().unwrap_or_else(|_| panic!("a slot"));
        let response = lines(first, watcher, |next, missed| next * 1000 + missed, slot);
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn a_stream_begins_with_what_is_there_and_ends_with_the_node() {
        let feed = Feed::new(9);
        let watcher = feed.watch_new();
        (0..3).for_each(|_| feed.push(|number| number));
        drop(feed);
        assert_eq!(read(vec![7, 8], watcher).await, "7\n8\n0\n1\n2\n");
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_what_it_missed_and_gets_nothing_more() {
        let feed = Feed::new(3);
        let watcher = feed.watch_new();
        (0..10).for_each(|_| feed.push(|number| number));
        assert_eq!(read(vec![], watcher).await, "7007\n", "seven are gone, and number 7 is the next");
        println!("figure: slow reader told of 7 of 7 that it missed");
    }

    #[test]
    fn readers_are_bounded_and_a_slot_comes_back() {
        let slots = Slots::default();
        let mut taken: Vec<_> = (0..MOST_READERS).map(|_| slots.take().unwrap_or_else(|_| panic!("a slot"))).collect();
        assert!(slots.take().is_err());
        taken.pop();
        assert!(slots.take().is_ok());
    }
}
