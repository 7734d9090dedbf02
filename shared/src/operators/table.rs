//! Tables for people.

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};

use crate::{contract::text::escaped, runtime::terminal};

/// A table as wide as the terminal. Whoever wrote what stands in a cell moves no cursor: what is not seen is escaped.
#[must_use]
pub fn table<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    if let Some(width) = terminal::width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| escaped(&cell)));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_moves_the_cursor_or_turns_the_writing_round() {
        let written = "it's \"Zoë\"\u{1b}[2J\u{9b}1A\r\n\u{202e}x\0".to_owned();
        let shown = table(["reason"], [[written]]);
        assert!(shown.contains(r#"it's "Zoë"\u{1b}[2J\u{9b}1A\r\n\u{202e}x\u{0}"#), "{shown}");
        assert!(shown.chars().all(|one| one == '\n' || !one.is_control()), "{shown:?}");
    }
}
