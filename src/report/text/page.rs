//! Lines that fit: wrapping, cutting, colours, and nothing that would steer the terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style as Sgr};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Style, WIDTH_MAX, WIDTH_MIN};
use crate::human;

/// How a text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tint {
    Plain,
    Strong,
    Quiet,
    Good,
    Notice,
    Warning,
    Critical,
    Command,
}

impl Tint {
    fn sgr(self) -> Sgr {
        let colour = |colour: AnsiColor| Sgr::new().fg_color(Some(colour.into()));
        match self {
            Self::Plain => Sgr::new(),
            Self::Strong => Sgr::new().bold(),
            Self::Quiet => Sgr::new().dimmed(),
            Self::Good => colour(AnsiColor::Green).bold(),
            Self::Notice => colour(AnsiColor::Cyan).bold(),
            Self::Warning => colour(AnsiColor::Yellow).bold(),
            Self::Critical => colour(AnsiColor::Red).bold(),
            Self::Command => colour(AnsiColor::Cyan),
        }
    }
}

/// One column of a table.
pub struct Column {
    /// Its head, one line or two.
    pub head: &'static str,
    /// Whether it holds numbers.
    pub is_right: bool,
    /// Which goes first where the terminal is too narrow; 0 stays.
    pub expendable: u8,
    /// Its cells, of as many lines as they have; made by [`Page::clean`] or [`Page::fit`].
    pub cells: Vec<String>,
}

impl Column {
    pub fn new(head: &'static str, is_right: bool, expendable: u8, cells: Vec<String>) -> Self {
        Self { head, is_right, expendable, cells }
    }

    pub fn width(&self) -> usize {
        let texts = self.cells.iter().map(String::as_str).chain([self.head]);
        texts.flat_map(str::lines).map(UnicodeWidthStr::width).max().unwrap_or(0)
    }
}

/// A text that grows line by line.
pub struct Page {
    style: Style,
    out: String,
    has_cut: bool,
}

impl Page {
    pub fn new(style: Style) -> Self {
        let width = style.width.clamp(WIDTH_MIN, WIDTH_MAX);
        Self { style: Style { width, ..style }, out: String::new(), has_cut: false }
    }

    pub fn finish(self) -> String {
        self.out
    }

    pub fn width(&self) -> usize {
        self.style.width
    }

    /// Whether anything was shortened or left out.
    pub fn has_cut(&self) -> bool {
        self.has_cut
    }

    /// To be said of whatever is left out.
    pub fn cut(&mut self) {
        self.has_cut = true;
    }

    /// One of two characters that mean the same.
    pub fn glyph(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.style.unicode { unicode } else { ascii }
    }

    /// Fit to be shown here. Clean text stays as it is.
    pub fn clean(&self, text: &str) -> String {
        let printable = human::printable(text);
        if self.style.unicode || printable.is_ascii() {
            return printable.into_owned();
        }
        let plain = printable.replace('→', "->").replace('…', "...");
        plain
            .chars()
            .map(|one| if one.is_ascii() { one.to_string() } else { one.escape_unicode().to_string() })
            .collect()
    }

    /// The same within `width` columns: what is too long loses its end.
    pub fn fit(&mut self, text: &str, width: usize) -> String {
        self.shorten(text, width, 1, 1)
    }

    /// The same, but what is too long loses its middle: both ends of an address or a path tell something.
    pub fn fit_middle(&mut self, text: &str, width: usize) -> String {
        self.shorten(text, width, 1, 2)
    }

    /// Keeps `part / parts` of what can stay at the beginning.
    fn shorten(&mut self, text: &str, width: usize, part: usize, parts: usize) -> String {
        let text = self.clean(text);
        if text.width() <= width {
            return text;
        }
        self.has_cut = true;
        let dots = self.glyph("…", "...");
        let room = width.saturating_sub(dots.width());
        let head = prefix(&text, room * part / parts);
        let reversed: String = text.chars().rev().collect();
        let tail = prefix(&reversed, room - head.width());
        let tail: String = if part == parts { String::new() } else { tail.chars().rev().collect() };
        format!("{head}{dots}{tail}")
    }

    pub fn blank(&mut self) {
        self.out.push('\n');
    }

    /// A heading, with a line before it.
    pub fn heading(&mut self, text: &str) {
        self.blank();
        self.hang(0, (Tint::Plain, ""), Tint::Strong, text);
    }

    pub fn bullet(&mut self, indent: usize, text: &str) {
        let bullet = self.glyph("• ", "* ");
        self.hang(indent, (Tint::Plain, bullet), Tint::Plain, text);
    }

    /// A label, and beside it a text of as many lines as it takes.
    pub fn hang(&mut self, indent: usize, (label_tint, label): (Tint, &str), tint: Tint, text: &str) {
        let label = self.fit(label, self.width() / 2);
        let at = indent + label.width();
        let lines = wrap(&self.clean(text), self.width() - at);
        for (index, line) in lines.iter().enumerate() {
            if index == 0 {
                self.push(indent, &[(label_tint, label.as_str()), (tint, line)]);
            } else {
                self.push(at, &[(tint, line)]);
            }
        }
    }

    /// The same with a bar between the two, which is clean and stays in one piece.
    pub fn hang_bar(&mut self, indent: usize, label: &str, (tint, bar): (Tint, &str), text: &str) {
        const ROOM_MIN: usize = 20;
        let label = self.clean(label);
        let at = indent + label.width() + bar.width() + 2;
        // In a narrow terminal the text goes below.
        if self.width() < at + ROOM_MIN {
            self.push(indent, &[(Tint::Plain, &label), (tint, bar)]);
            self.hang(indent + label.width(), (Tint::Plain, ""), Tint::Plain, text);
            return;
        }
        for (index, line) in wrap(&self.clean(text), self.width() - at).iter().enumerate() {
            if index == 0 {
                self.push(
                    indent,
                    &[(Tint::Plain, &label), (tint, bar), (Tint::Plain, "  "), (Tint::Plain, line)],
                );
            } else {
                self.push(at, &[(Tint::Plain, line)]);
            }
        }
    }

    /// A command on lines of its own, to be copied. It is broken only at a space outside quotes, with a `\` that the shell
    /// takes away again. A single word that is too long stays whole and is the one thing wider than the page.
    pub fn command(&mut self, indent: usize, command: &str) {
        const FURTHER: usize = 2;
        let command = self.clean(command);
        let room = self.width() - indent - FURTHER - " \\".len();
        let mut lines: Vec<String> = Vec::new();
        for word in words(&command) {
            match lines.last_mut() {
                Some(line) if line.width() + 1 + word.width() <= room => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        let last = lines.len().saturating_sub(1);
        for (index, line) in lines.iter().enumerate() {
            let indent = if index == 0 { indent } else { indent + FURTHER };
            let end = if index == last { "" } else { " \\" };
            self.push(indent, &[(Tint::Command, &format!("{line}{end}"))]);
        }
    }

    /// A table below its head. Columns that do not fit go, the most expendable first; then cells are wrapped.
    pub fn table(&mut self, indent: usize, mut columns: Vec<Column>) {
        let room = self.width() - indent;
        let needs = |columns: &[Column], gap: usize| {
            columns.iter().map(|column| column.width() + gap).sum::<usize>().saturating_sub(gap)
        };
        while needs(&columns, 1) > room {
            let expendable = columns.iter().map(|column| column.expendable).max().unwrap_or(0);
            if expendable == 0 {
                break;
            }
            self.has_cut = true;
            columns.retain(|column| column.expendable < expendable);
        }
        let gap = if needs(&columns, 2) > room { 1 } else { 2 };
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        // The last column's gap is cut off again.
        table.set_width(u16::try_from(room + usize::from(gap)).unwrap_or(u16::MAX));
        table.set_header(columns.iter().map(|column| column.head).collect::<Vec<_>>());
        let rows = columns.iter().map(|column| column.cells.len()).max().unwrap_or(0);
        for row in 0..rows {
            let cells = columns.iter().map(|column| column.cells.get(row).map_or("", String::as_str));
            table.add_row(cells.collect::<Vec<_>>());
        }
        for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
            shown.set_padding((0, gap));
            shown.set_cell_alignment(if column.is_right {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            });
        }
        let heads = columns.iter().map(|column| column.head.lines().count()).max().unwrap_or(0);
        let lines: Vec<String> = table.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let tint = if index < heads { Tint::Strong } else { Tint::Plain };
            self.push(indent, &[(tint, line.trim_end())]);
        }
    }

    /// One line of parts that are clean and fit.
    fn push(&mut self, indent: usize, parts: &[(Tint, &str)]) {
        let is_blank = |text: &str| text.bytes().all(|byte| byte == b' ');
        let shown = parts.iter().rposition(|(_, text)| !is_blank(text)).map_or(0, |last| last + 1);
        if shown > 0 {
            self.out.extend(std::iter::repeat_n(' ', indent));
        }
        for (index, (tint, text)) in parts[..shown].iter().enumerate() {
            let text = if index + 1 == shown { text.trim_end_matches(' ') } else { text };
            if self.style.colour && *tint != Tint::Plain && !is_blank(text) {
                let sgr = tint.sgr();
                // Writing to a string cannot fail.
                let _ = write!(self.out, "{sgr}{text}{sgr:#}");
            } else {
                self.out.push_str(text);
            }
        }
        self.out.push('\n');
    }
}

/// The longest beginning of `text` that is no wider than `width`.
fn prefix(text: &str, width: usize) -> &str {
    let mut columns = 0;
    let fits = |one: &char| {
        columns += one.width().unwrap_or(0);
        columns <= width
    };
    let length = text.chars().take_while(fits).map(char::len_utf8).sum();
    &text[..length]
}

/// Lines no wider than `width`, broken at spaces, and within a word only where it is wider than a line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in glued(text) {
        let mut word = word.as_str();
        loop {
            let Some(line) = lines.last_mut() else { return lines };
            let space = usize::from(!line.is_empty());
            if line.width() + space + word.width() <= width {
                line.extend(std::iter::repeat_n(' ', space));
                line.push_str(word);
                break;
            }
            if line.is_empty() {
                // At least one character, or it would never end.
                let first = word.chars().next().map_or(0, char::len_utf8);
                let (head, rest) = word.split_at(prefix(word, width).len().max(first));
                line.push_str(head);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

/// The words of a text; what nobody should have to look for on the next line is one: a number and its unit, `(pid 1)`.
fn glued(text: &str) -> Vec<String> {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "%", "UTC"];
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let bare = word.trim_end_matches(['.', ',', ';', ':', ')']);
        match words.last_mut() {
            Some(last)
                if last == "(pid"
                    || UNITS.contains(&bare) && last.ends_with(|one: char| one.is_ascii_digit()) =>
            {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// The words of a shell command, each with the quotes in it: the places where it may be broken.
fn words(command: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut quote = None;
    let mut is_escaped = false;
    for (at, one) in command.char_indices() {
        match one {
            _ if is_escaped => is_escaped = false,
            '\\' if quote != Some('\'') => is_escaped = true,
            '\'' | '"' if quote == Some(one) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(one),
            ' ' if quote.is_none() => {
                words.push(&command[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&command[start..]);
    // Several spaces between words are as good as one.
    words.retain(|word| !word.is_empty());
    words
}
