//! Tables for people: pure functions from the models to text.
//!
//! Columns and labels are those that people know from `weave status`; text from other machines is stripped of what
//! could steer a terminal.

pub(crate) mod events;
mod ipam;
mod links;
mod members;
mod status;

use std::net::IpAddr;

use comfy_table::{Table, presets};
pub(crate) use ipam::ipam;
pub(crate) use links::{connections, paths};
pub(crate) use members::peers;
use meshwork_wire::PeerId;
pub(crate) use status::status;

use crate::units::plain;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// What fits a terminal.
    Normal,
    /// Every column, whole ids.
    Wide,
}

/// Aligns `rows` below `header` with two blanks between columns.
fn columns<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { plain(&cell) }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `a1b2c3d4(node-1)`, as `weave status` named peers; the whole id where there is room.
fn peer(width: Width, id: &PeerId, nickname: &str) -> String {
    let id = if width == Width::Wide { id.to_string() } else { id.short() };
    if nickname.is_empty() { id } else { format!("{id}({nickname})") }
}

/// Addresses on one line, as scripts around `weave attach` read them.
pub(crate) fn addresses(addresses: &[IpAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    if words.is_empty() { String::new() } else { format!("{}\n", words.join(" ")) }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// A model's word in its JSON spelling.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
pub(crate) mod samples;
