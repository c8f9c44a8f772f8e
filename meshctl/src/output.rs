//! Answers in the asked format.

use std::io::{self, Write as _};
use std::ops::ControlFlow;

use serde::Serialize;

use crate::cli::Format;
use crate::table::Width;
use crate::yaml;

/// Prints `answer`: as the model for programs, by `table` for people.
pub(crate) fn print<A: Serialize>(
    format: Format,
    answer: &A,
    table: impl FnOnce(&A, Width) -> String,
) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => table(answer, Width::Normal),
        Format::Wide => table(answer, Width::Wide),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(answer)?),
        Format::Yaml => yaml::document(&serde_json::to_value(answer)?),
    };
    text_to_stdout(&text)
}

/// Prints text. A reader that has seen enough, such as `head`, is no error.
pub(crate) fn text_to_stdout(text: &str) -> anyhow::Result<()> {
    to_stdout(text).map(drop)
}

/// Prints text and tells whether somebody still reads.
pub(crate) fn to_stdout(text: &str) -> anyhow::Result<ControlFlow<()>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error.into()),
    }
}
