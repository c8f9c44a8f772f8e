//! Names of the kernel objects that a comparison changed.

use std::fmt::Display;

/// Names that are kept: somebody who flushed every route of a large mesh needs no list of them.
const MOST_NAMED: usize = 16;

/// What was changed, in words; the first few of many.
#[derive(Debug, Default)]
pub(super) struct Mended {
    named: Vec<String>,
    more: usize,
}

impl Mended {
    /// Something was changed.
    pub(super) fn note(&mut self, kind: &str, name: impl Display) {
        match self.named.len() {
            0..MOST_NAMED => self.named.push(format!("{kind} {name}")),
            _ => self.more += 1,
        }
    }

    /// Whether nothing was.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The names, and how many are left out.
    pub(super) fn into_names(mut self) -> Vec<String> {
        if self.more > 0 {
            self.named.push(format!("{} more", self.more));
        }
        self.named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_are_counted_rather_than_named() {
        let mut mended = Mended::default();
        assert!(mended.is_empty());
        (0..20).for_each(|number| mended.note("route", number));
        let names = mended.into_names();
        assert_eq!((names.len(), names[0].as_str(), names[16].as_str()), (17, "route 0", "4 more"));
    }
}
