//! The web configuration file: the format of the Prometheus exporter-toolkit, read strictly.
//!
//! What the toolkit takes and then silently does not enforce (rules for client certificates that nobody is
//! asked for, a rate limit that lets nothing or everything through) is refused here. Where both an inline
//! value and a file are given, the file counts, as there.

use super::logins::Users;
use super::rate_limit::RateLimit;
use super::tls::{self, Tls};
use axum::http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_saphyr::{DuplicateKeyPolicy, Spanned};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is wrong with a web configuration file: the place, the problem, the cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebConfigError {
    file: PathBuf,
    line: Option<u64>,
    key: Option<String>,
    problem: String,
}

impl fmt::Display for WebConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "web configuration file {}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", {key}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for WebConfigError {}

/// Everything a request or a handshake needs from the file.
#[derive(Debug)]
pub(super) struct WebConfig {
    pub(super) tls: Option<Tls>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) users: Users,
    pub(super) rate_limit: Option<RateLimit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Content {
    tls_server_config: Option<TlsSection>,
    http_server_config: Option<HttpSection>,
    basic_auth_users: Option<BTreeMap<String, Spanned<Option<String>>>>,
    rate_limit: Option<RateSection>,
}

/// `tls_server_config`, as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsSection {
    pub(super) cert: Text,
    pub(super) key: Text,
    pub(super) client_ca: Text,
    pub(super) cert_file: Text,
    pub(super) key_file: Text,
    pub(super) client_ca_file: Text,
    pub(super) client_auth_type: Text,
    pub(super) client_allowed_sans: Option<Spanned<Vec<String>>>,
    pub(super) min_version: Text,
    pub(super) max_version: Text,
    pub(super) cipher_suites: Option<Vec<Spanned<String>>>,
    pub(super) curve_preferences: Option<Vec<Spanned<String>>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpSection {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, Spanned<Option<String>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RateSection {
    interval: Text,
    burst: Option<Spanned<u32>>,
}

/// A string and where it stands; nothing and an empty one mean the same.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Text(Option<Spanned<String>>);

impl Text {
    pub(super) fn get(&self) -> Option<&Spanned<String>> {
        self.0.as_ref().filter(|text| !text.value.is_empty())
    }

    /// The line it is on.
    pub(super) fn line(&self) -> Option<u64> {
        self.0.as_ref().map(|text| text.referenced.line())
    }
}

impl TlsSection {
    /// Whether anything is set: then TLS is meant, and a certificate must be there.
    fn is_meant(&self) -> bool {
        let texts = [
            &self.cert,
            &self.key,
            &self.client_ca,
            &self.cert_file,
            &self.key_file,
            &self.client_ca_file,
            &self.client_auth_type,
            &self.min_version,
            &self.max_version,
        ];
        texts.iter().any(|text| text.get().is_some())
            || self.client_allowed_sans.is_some()
            || self.cipher_suites.is_some()
            || self.curve_preferences.is_some()
            || self.prefer_server_cipher_suites.is_some()
    }
}

/// Finds fault with one file.
#[derive(Clone, Copy)]
pub(super) struct Critic<'a> {
    file: &'a Path,
}

impl Critic<'_> {
    pub(super) fn fault(
        self,
        line: Option<u64>,
        key: impl Into<String>,
        problem: impl Into<String>,
    ) -> WebConfigError {
        let line = line.filter(|&line| line > 0);
        WebConfigError { file: self.file.into(), line, key: Some(key.into()), problem: problem.into() }
    }

    fn fault_of_file(self, line: Option<u64>, problem: String) -> WebConfigError {
        WebConfigError { file: self.file.into(), line, key: None, problem }
    }
}

/// What is wrong with `file` that only its reader knows.
pub(super) fn fault(file: &Path, key: &str, problem: &str) -> WebConfigError {
    Critic { file }.fault(None, key, problem)
}

/// Reads and checks `file`. Every other file it names is added to `named`, also if reading fails.
pub(super) fn read(file: &Path, named: &mut Vec<PathBuf>) -> Result<WebConfig, WebConfigError> {
    let critic = Critic { file };
    let content = parse(critic)?;
    let http = content.http_server_config.unwrap_or_default();
    let directory = file.parent().unwrap_or(Path::new(""));
    let tls = match content.tls_server_config.filter(TlsSection::is_meant) {
        Some(section) => Some(tls::build(&section, http.http2.unwrap_or(true), directory, critic, named)?),
        None => None,
    };
    Ok(WebConfig {
        tls,
        headers: headers(http.headers.unwrap_or_default(), critic)?,
        users: users(content.basic_auth_users.unwrap_or_default(), critic)?,
        rate_limit: content.rate_limit.map_or(Ok(None), |section| rate_limit(&section, critic))?,
    })
}

/// Whether `file` asks for TLS. Reads no other file: the health check may not be allowed to read the key.
pub(super) fn wants_tls(file: &Path) -> Result<bool, WebConfigError> {
    Ok(parse(Critic { file })?.tls_server_config.is_some_and(|section| section.is_meant()))
}

fn parse(critic: Critic<'_>) -> Result<Content, WebConfigError> {
    let text = std::fs::read_to_string(critic.file).map_err(|error| {
        critic.fault_of_file(None, format!("cannot be read ({error}); give the path of a readable YAML file"))
    })?;
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        // An excerpt of the file in an error could put a key or a hash into the log.
        with_snippet: false,
    };
    let content: Option<Content> = serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
        let line = error.location().map(|location| location.line());
        let key = line.and_then(|line| known_key(&text, line));
        let problem = format!("{}; the format is the exporter-toolkit's web configuration", brief(&error));
        WebConfigError { file: critic.file.into(), line, key, problem }
    })?;
    Ok(content.unwrap_or_default())
}

/// The key a line begins with, if it is one of ours: anything else could be a part of a secret.
fn known_key(text: &str, line: u64) -> Option<String> {
    const KEYS: [&str; 6] =
        ["tls_server_config", "http_server_config", "http2", "basic_auth_users", "interval", "burst"];
    let line = text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let key = line.split(':').next()?.trim();
    KEYS.contains(&key).then(|| key.to_owned())
}

/// The parser's message without the place, which stands before it, and without what a value says.
fn brief(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("{field:?} is no key of this section, which has {}", expected.join(", "))
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key:?} is given twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a key is given twice".to_owned(),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            format!("the value must be {expected}")
        }
        Error::InvalidScalar { ty: "boolean", .. } => "the value must be true or false".to_owned(),
        Error::InvalidScalar { ty, .. } if ty.starts_with('u') => {
            "the value must be a whole number from 0 up".to_owned()
        }
        Error::Unexpected { expected: "mapping start", .. } => {
            "the value must be a section with keys".to_owned()
        }
        Error::MultipleDocuments { .. } => "there is a second YAML document in it; remove it".to_owned(),
        other => {
            let text = other.without_snippet().to_string();
            let first = text.lines().next().unwrap_or_default();
            let message = first.rfind(" at line ").map_or(first, |at| &first[..at]);
            format!("this is not valid YAML ({message})")
        }
    }
}

/// The headers that may be set, with their only values where these are fixed.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

fn headers(
    given: BTreeMap<String, Spanned<Option<String>>>,
    critic: Critic<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, WebConfigError> {
    let mut headers = Vec::new();
    for (name, value) in given {
        let line = Some(value.referenced.line());
        let fault = |problem| critic.fault(line, format!("http_server_config.headers.{name}"), problem);
        let Some((_, only)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = HEADERS.iter().map(|(known, _)| *known).collect();
            return Err(fault(format!("this header cannot be set; only {} can", known.join(", "))));
        };
        let Some(value) = value.value.filter(|value| !value.is_empty()) else { continue };
        if !only.is_empty() && !only.contains(&value.as_str()) {
            return Err(fault(format!("{value:?} is no value of this header; use {}", only.join(" or "))));
        }
        match (name.parse(), HeaderValue::from_str(&value)) {
            (Ok(name), Ok(value)) => headers.push((name, value)),
            _ => {
                return Err(fault("the value has a character that no header may have; remove it".to_owned()));
            }
        }
    }
    Ok(headers)
}

fn users(
    given: BTreeMap<String, Spanned<Option<String>>>,
    critic: Critic<'_>,
) -> Result<Users, WebConfigError> {
    let mut users = Users::default();
    for (name, hash) in given {
        let line = Some(hash.referenced.line());
        if let Err(problem) = users.add(&name, hash.value.as_deref().unwrap_or_default()) {
            return Err(critic.fault(line, format!("basic_auth_users.{name}"), problem));
        }
    }
    Ok(users)
}

fn rate_limit(section: &RateSection, critic: Critic<'_>) -> Result<Option<RateLimit>, WebConfigError> {
    let Some(interval) = section.interval.get() else { return Ok(None) };
    let line = Some(interval.referenced.line());
    let Some(interval) = go_duration(&interval.value) else {
        let problem = format!("{:?} is no duration; use for example 1s, 100ms or 1m30s", interval.value);
        return Err(critic.fault(line, "rate_limit.interval", problem));
    };
    if interval.is_zero() {
        return Ok(None);
    }
    match section.burst.as_ref().map_or(0, |burst| burst.value) {
        0 => {
            let line = section.burst.as_ref().map(|burst| burst.referenced.line()).or(line);
            let problem = "a burst of 0 would refuse every request; set it to 1 or more";
            Err(critic.fault(line, "rate_limit.burst", problem))
        }
        burst => Ok(Some(RateLimit { interval, burst })),
    }
}

/// A duration as Go writes it: decimal numbers, each with a unit, or a bare 0. There are no negative ones here.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit_at].parse().ok()?;
        rest = &rest[unit_at..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[unit_end..];
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("1s", 1000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2000us", 2),
            ("2000µs", 2),
            ("1000000ns", 1),
        ] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "1x", "1 s", "-1s", "1s1", "1..2s", "99999999999999999999h", "one"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
