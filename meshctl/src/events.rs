//! `meshctl events`: what happened, and what happens from now on.

use std::ops::ControlFlow;

use meshwork_api::client::Client;
use meshwork_api::event::{Event, Events, Happening};

use crate::cli::Format;
use crate::output::{text_to_stdout, to_stdout};
use crate::table::{self, Width};
use crate::yaml;

/// Prints what the daemon keeps.
pub(crate) fn list(client: &Client, format: Format) -> anyhow::Result<()> {
    let Events { events, .. } = client.get("/v1/events")?;
    let lines: Result<Vec<String>, _> = events.iter().map(|event| line(format, event)).collect();
    text_to_stdout(&(header(format) + &lines?.concat()))
}

/// Prints what the daemon keeps and what comes, until either side ends. False where events were missed.
pub(crate) fn watch(client: &Client, format: Format) -> anyhow::Result<bool> {
    let mut complete = true;
    if to_stdout(&header(format))?.is_break() {
        return Ok(complete);
    }
    client.watch("/v1/events?watch", |event: Event| -> anyhow::Result<ControlFlow<()>> {
        complete &= !matches!(event.happening, Happening::Missed { .. });
        to_stdout(&line(format, &event)?)
    })?;
    Ok(complete)
}

fn header(format: Format) -> String {
    match format {
        Format::Table => table::events::header(Width::Normal),
        Format::Wide => table::events::header(Width::Wide),
        Format::Json | Format::Yaml => String::new(),
    }
}

/// Programs get one JSON object per line, or one YAML document, for each event: they need not wait for the last.
fn line(format: Format, event: &Event) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table => table::events::event(event, Width::Normal),
        Format::Wide => table::events::event(event, Width::Wide),
        Format::Json => format!("{}\n", serde_json::to_string(event)?),
        Format::Yaml => format!("---\n{}", yaml::document(&serde_json::to_value(event)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    #[test]
    fn programs_get_one_object_per_event() {
        let [first, ..] = &samples::events()[..] else { panic!("a sample") };
        let json = line(Format::Json, first).unwrap();
        assert_eq!(json.lines().count(), 1);
        assert_eq!(&serde_json::from_str::<Event>(&json).unwrap(), first);
        assert!(line(Format::Yaml, first).unwrap().starts_with("---\n"));
    }
}
