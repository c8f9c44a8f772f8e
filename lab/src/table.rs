//! Tables for people: columns as wide as their widest cell.

use std::fmt::Write;

/// Rows under a heading, as a Markdown table that also reads well on a terminal.
pub(crate) fn render<const COLUMNS: usize>(heading: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let mut widths = heading.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::new();
    line(&mut table, &widths, &heading);
    let rule = widths.map(|width| "-".repeat(width));
    line(&mut table, &widths, &rule.each_ref().map(String::as_str));
    for row in rows {
        line(&mut table, &widths, &row.each_ref().map(String::as_str));
    }
    table
}

fn line(table: &mut String, widths: &[usize], cells: &[&str]) {
    for (&width, cell) in widths.iter().zip(cells) {
        // Writing to a string cannot fail.
        let _ = write!(table, "| {cell:width$} ");
    }
    table.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = render(["what", "µs"], &[["round trip".into(), "9".into()], ["x".into(), "1000".into()]]);
        let expected = "| what       | µs   |\n| ---------- | ---- |\n| round trip | 9    |\n| x          | 1000 |\n";
        assert_eq!(table, expected);
    }
}
