//! One parser for all layers: what a setting may be, and how its text becomes a value and text again.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::listen::ListenAddress;

/// Longest text taken for a duration or a size: enough for every sensible one.
const LONGEST_NUMBER: usize = 64;

/// Longest run of digits in a duration. Far above every limit, and far below where humantime's sums overflow:
/// it panics on the very largest number of seconds with 1000ms added.
const MOST_DIGITS: usize = 9;

/// What a setting may be set to.
#[derive(Debug, Clone, PartialEq)]
pub enum Allowed {
    /// One or more listen addresses, none twice. The only kind that is a list.
    Addresses,
    /// The path of a URL, none of the server's own.
    Route,
    /// A file path, relative to the working directory unless absolute.
    Path,
    /// An absolute path.
    AbsolutePath,
    /// `true` or `false`
    Switch,
    /// A whole number within bounds.
    Count(RangeInclusive<usize>),
    /// A duration within bounds.
    Duration(RangeInclusive<Duration>),
    /// A number of bytes.
    Size,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A valid value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Addresses(Vec<ListenAddress>),
    Route(String),
    Path(PathBuf),
    Switch(bool),
    Count(usize),
    Duration(Duration),
    Size(u64),
    Choice(&'static str),
}

/// A text that is no valid value.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    /// The text, or the part of the list that is wrong.
    pub(super) text: String,
    /// What is wrong with it and what to write instead.
    pub(super) why: String,
}

/// What to write, for help and error texts: reads on from "use".
impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses => f.write_str(
                ":PORT (all interfaces), IPV4:PORT, [IPV6]:PORT or NAME:PORT (localhost, or in /etc/hosts)",
            ),
            Self::Route => f.write_str(
                "a path such as /metrics, other than /, /-/healthy, /-/ready and those below /api/",
            ),
            Self::Path => f.write_str("a file path"),
            Self::AbsolutePath => f.write_str("an absolute path"),
            Self::Switch => f.write_str("true or false"),
            Self::Count(range) => write!(f, "a whole number from {} to {}", range.start(), range.end()),
            Self::Duration(range) => {
                write!(
                    f,
                    "a duration from {} to {}",
                    duration_text(*range.start()),
                    duration_text(*range.end())
                )
            }
            Self::Size => f.write_str("bytes such as 65536, 64KiB or 1MiB (k is 1000, Ki is 1024)"),
            Self::Choice(words) => match words {
                [some @ .., last] if !some.is_empty() => write!(f, "{} or {last}", some.join(", ")),
                words => f.write_str(&words.concat()),
            },
        }
    }
}

impl Allowed {
    /// What stands for a value in a usage line.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Self::Addresses => "ADDRESS",
            Self::Route | Self::Path | Self::AbsolutePath => "PATH",
            Self::Switch => "true|false",
            Self::Count(_) => "COUNT",
            Self::Duration(_) => "DURATION",
            Self::Size => "BYTES",
            Self::Choice(_) => "WORD",
        }
    }

    /// The value that `texts` stand for: one text, or for a list any number.
    pub(super) fn parse(&self, texts: &[String]) -> Result<Value, Vec<Refusal>> {
        if *self == Self::Addresses {
            return self.parse_addresses(texts);
        }
        match texts {
            [text] => self.parse_one(text).map_err(|why| vec![self.refuse(text, &why)]),
            [] => Err(vec![self.refuse("", "is an empty list")]),
            more => Err(vec![Refusal {
                text: more.join(", "),
                why: format!("is set {} times; set it once", more.len()),
            }]),
        }
    }

    /// A duration that is no setting, read as one; in error texts what is wrong with it and what to write instead.
    pub fn parse_duration(range: RangeInclusive<Duration>, text: &str) -> Result<Duration, String> {
        let allowed = Self::Duration(range);
        match allowed.parse(&[text.to_owned()]) {
            Ok(Value::Duration(duration)) => Ok(duration),
            Ok(_) => unreachable!("a duration is read as a duration"),
            Err(refusals) => Err(refusals.into_iter().map(|refusal| refusal.why).collect()),
        }
    }

    fn refuse(&self, text: &str, why: &str) -> Refusal {
        Refusal { text: text.to_owned(), why: format!("{why}; use {self}") }
    }

    fn parse_addresses(&self, texts: &[String]) -> Result<Value, Vec<Refusal>> {
        let mut addresses: Vec<ListenAddress> = Vec::new();
        let mut refusals = Vec::new();
        for text in texts {
            match text.trim().parse::<ListenAddress>() {
                Ok(address) => match addresses.iter().find(|before| before.overlaps(&address)) {
                    Some(before) if *before == address => {
                        refusals
                            .push(Refusal { text: text.clone(), why: "is there twice; drop one".to_owned() });
                    }
                    Some(before) => {
                        let why = format!("cannot be bound together with {before}; drop one");
                        refusals.push(Refusal { text: text.clone(), why });
                    }
                    None => addresses.push(address),
                },
                Err(_) if text.trim().is_empty() => refusals.push(self.refuse(text, "is empty")),
                Err(why) => refusals.push(self.refuse(text, &why)),
            }
        }
        if texts.is_empty() {
            refusals.push(self.refuse("", "is an empty list"));
        }
        if refusals.is_empty() { Ok(Value::Addresses(addresses)) } else { Err(refusals) }
    }

    fn parse_one(&self, text: &str) -> Result<Value, String> {
        let word = text.trim();
        if word.is_empty() {
            return Err("is empty".to_owned());
        }
        match self {
            Self::Addresses => word.parse().map(|address| Value::Addresses(vec![address])),
            Self::Route => route(word).map(Value::Route),
            // A path may begin or end with a space, so it is not trimmed.
            Self::Path | Self::AbsolutePath if text.contains('\0') => Err("holds a NUL byte".to_owned()),
            Self::AbsolutePath if !text.starts_with('/') => Err("is a relative path".to_owned()),
            Self::Path | Self::AbsolutePath => Ok(Value::Path(PathBuf::from(text))),
            Self::Switch => {
                word.parse().map(Value::Switch).map_err(|_| "is neither true nor false".to_owned())
            }
            Self::Count(range) => count(word, range).map(Value::Count),
            Self::Duration(range) => duration(word, range).map(Value::Duration),
            Self::Size => size(word).map(Value::Size),
            Self::Choice(words) => match words.iter().find(|choice| **choice == word) {
                Some(choice) => Ok(Value::Choice(choice)),
                None => Err("is not a known word".to_owned()),
            },
        }
    }
}

/// A path that the router takes literally and every client sends unchanged.
fn route(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("does not start with /".to_owned());
    }
    if ["/", "/-/healthy", "/-/ready"].contains(&text) || text.starts_with("/api/") {
        return Err("is a path of the server's own".to_owned());
    }
    let literal = |c: char| c.is_ascii_alphanumeric() || "/._~-".contains(c);
    if let Some(strange) = text.chars().find(|c| !literal(*c)) {
        return Err(format!("holds {strange:?}, not only letters, digits and /._~-"));
    }
    // Clients shorten these before they ask.
    if text[1..].split('/').any(|segment| ["", ".", ".."].contains(&segment)) {
        return Err("has an empty, . or .. segment".to_owned());
    }
    Ok(text.to_owned())
}

fn count(text: &str, range: &RangeInclusive<usize>) -> Result<usize, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is not a whole number".to_owned());
    }
    if digits.len() < text.len() {
        return Err("is negative".to_owned());
    }
    // What does not fit is above every limit.
    within(text.parse().unwrap_or(usize::MAX), range, ToString::to_string)
}

/// A duration as people write it. A bare number is refused: some tools take it for seconds, others for
/// milliseconds.
fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err("is negative".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("has no unit: {}s, {}m or {}h?", shorten(text), shorten(text), shorten(text)));
    }
    let dense: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if text.len() > LONGEST_NUMBER
        || dense.split(|c: char| !c.is_ascii_digit()).any(|n| n.len() > MOST_DIGITS)
    {
        return Err("has more digits than any duration needs".to_owned());
    }
    match humantime::parse_duration(text) {
        Ok(duration) => within(duration, range, |bound| duration_text(*bound)),
        Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
            Err("has a number without a unit (ms, s, m, h)".to_owned())
        }
        Err(humantime::DurationError::UnknownUnit { unit, .. }) => {
            Err(format!("has the unknown unit {unit:?} (known: ms, s, m, h)"))
        }
        Err(humantime::DurationError::NumberOverflow) => Err("is too large or too finely divided".to_owned()),
        Err(_) => Err("is not a duration such as 15s or 1m30s".to_owned()),
    }
}

/// Bytes, exactly: bytesize's own parser goes through `f64`, rounds, and turns what is too large into the
/// largest number without a word. Its units are kept.
fn size(text: &str) -> Result<u64, String> {
    if text.starts_with('-') {
        return Err("is negative".to_owned());
    }
    if text.len() > LONGEST_NUMBER {
        return Err("has more digits than any size needs".to_owned());
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim_start());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || (number.contains('.') && !is_number(fraction)) {
        return Err("is not a size".to_owned());
    }
    let factor = match unit {
        "" => 1,
        unit => match unit.parse::<bytesize::Unit>() {
            Ok(unit) => u128::from(unit * 1),
            Err(_) => return Err(format!("has the unknown unit {unit:?}")),
        },
    };
    if unit.is_empty() && !fraction.is_empty() {
        return Err("is not a whole number of bytes".to_owned());
    }
    let too_large = || "is too large".to_owned();
    let whole: u128 = whole.parse().map_err(|_| too_large())?;
    // Digits past the 18th are less than a byte of any unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = fraction.parse::<u128>().unwrap_or(0) * factor
        / 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let bytes = whole.checked_mul(factor).and_then(|bytes| bytes.checked_add(part)).ok_or_else(too_large)?;
    u64::try_from(bytes).map_err(|_| too_large())
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    text: impl Fn(&T) -> String,
) -> Result<T, String> {
    if value < *range.start() {
        Err(format!("is below the smallest allowed, {}", text(range.start())))
    } else if value > *range.end() {
        Err(format!("is above the largest allowed, {}", text(range.end())))
    } else {
        Ok(value)
    }
}

/// The beginning of a text that is repeated in a message.
fn shorten(text: &str) -> &str {
    text.get(..MOST_DIGITS).unwrap_or(text)
}

/// `1m30s`, as [`Allowed::Duration`] reads it.
fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// `1MiB` where that is exact, else plain bytes.
fn size_text(bytes: u64) -> String {
    let units = [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift)) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(format!("\\U{:08X}", u32::from(c)).chars()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl Value {
    /// As it stands in a TOML file.
    pub(super) fn to_toml(&self) -> String {
        match self {
            Self::Addresses(addresses) => {
                let list: Vec<String> =
                    addresses.iter().map(|address| quoted(&address.to_string())).collect();
                format!("[{}]", list.join(", "))
            }
            Self::Route(text) => quoted(text),
            Self::Path(path) => quoted(&path.to_string_lossy()),
            Self::Switch(on) => on.to_string(),
            Self::Count(count) => count.to_string(),
            Self::Duration(duration) => quoted(&duration_text(*duration)),
            Self::Size(bytes) => quoted(&size_text(*bytes)),
            Self::Choice(word) => quoted(word),
        }
    }
}

/// Each variant holds a type of its own, so a setting is taken out by the type of its field.
macro_rules! taken_out_as {
    ($($variant:ident => $type:ty),* $(,)?) => {$(
        impl TryFrom<Value> for $type {
            type Error = Value;

            fn try_from(value: Value) -> Result<Self, Value> {
                match value {
                    Value::$variant(inner) => Ok(inner),
                    other => Err(other),
                }
            }
        }
    )*};
}

taken_out_as! {
    Addresses => Vec<ListenAddress>,
    Route => String,
    Path => PathBuf,
    Switch => bool,
    Count => usize,
    Duration => Duration,
    Size => u64,
    Choice => &'static str,
}

#[cfg(test)]
mod tests;
