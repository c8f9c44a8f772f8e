//! `meshctl events`: one line per event, in columns that also hold when lines come one by one.

use meshwork_api::event::Event;

use super::Width;
use crate::units::{age, plain};

/// Of the time since the daemon started, the kind, and the subject; what is longer pushes the rest of its line aside.
const WIDTHS: [usize; 3] = [9, 17, 24];

/// Names of the columns.
pub(crate) fn header(width: Width) -> String {
    line(width, "SEQUENCE", ["UP", "KIND", "SUBJECT"].map(str::to_owned), "REASON")
}

/// One event.
pub(crate) fn event(event: &Event, width: Width) -> String {
    let columns = [age(event.uptime_s), kind(event), plain(&event.subject)];
    line(width, &event.sequence.to_string(), columns, &plain(&event.reason))
}

fn line(width: Width, sequence: &str, columns: [String; 3], reason: &str) -> String {
    let mut text = if width == Width::Wide { format!("{sequence:<10}") } else { String::new() };
    for (column, width) in columns.iter().zip(WIDTHS) {
        text.push_str(&format!("{column:<width$}  "));
    }
    text.push_str(reason);
    format!("{}\n", text.trim_end())
}

/// The kind in its JSON spelling.
fn kind(event: &Event) -> String {
    let value = serde_json::to_value(&event.happening).unwrap_or_default();
    value.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    fn table(width: Width) -> String {
        let lines: String = samples::events().iter().map(|sample| event(sample, width)).collect();
        header(width) + &lines
    }

    #[test]
    fn events_show_when_what_to_whom_and_why() {
        insta::assert_snapshot!(table(Width::Normal));
    }

    #[test]
    fn wide_events_show_their_numbers() {
        insta::assert_snapshot!(table(Width::Wide));
    }
}
