//! What a scraper may be given, from its `Accept` and `Accept-Encoding`. Pure: bytes in, a choice out.
//!
//! Broken headers are never an error. An item that makes no sense is left out; a header that leaves nothing
//! we can write gets the classic format, as the exposition format asks of every exporter.

use std::cmp::Ordering;

use crate::metrics::Format;

/// What `Content-Type` says of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// OpenMetrics 1.0.0.
    OpenMetrics100,
    /// OpenMetrics 0.0.1: the same body for a scraper that knows no later version.
    OpenMetrics001,
    /// Prometheus text 0.0.4.
    Classic,
}

impl MediaType {
    /// In the order we would choose if a scraper liked all of them the same.
    const ALL: [Self; 3] = [Self::OpenMetrics100, Self::OpenMetrics001, Self::Classic];

    /// The format of the body.
    pub fn format(self) -> Format {
        match self {
            Self::OpenMetrics100 | Self::OpenMetrics001 => Format::OpenMetrics,
            Self::Classic => Format::Classic,
        }
    }

    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics100 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetrics001 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Type, subtype and version as a media range would have to name them.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::OpenMetrics100 => ("application", "openmetrics-text", "1.0.0"),
            Self::OpenMetrics001 => ("application", "openmetrics-text", "0.0.1"),
            Self::Classic => ("text", "plain", "0.0.4"),
        }
    }
}

/// The media type to answer with, from the values of all `Accept` headers of a request.
///
/// The highest quality wins. Of equal ones OpenMetrics wins if it was named, and the classic format if only
/// a wildcard covers OpenMetrics: who sends `*/*` is a person or a tool that reads the classic format.
pub fn media_type<'a>(accept: impl IntoIterator<Item = &'a [u8]>) -> MediaType {
    let headers: Vec<_> = accept.into_iter().map(String::from_utf8_lossy).collect();
    let ranges: Vec<Range> =
        headers.iter().flat_map(|header| split(header, ',')).filter_map(Range::parse).collect();
    let mut best: Option<(f32, bool, MediaType)> = None;
    for offer in MediaType::ALL {
        let Some((specificity, quality)) = quality_of(offer, &ranges) else { continue };
        if quality <= 0.0 {
            continue;
        }
        // A tie between the classic format and a wildcard's OpenMetrics goes to the classic format.
        let natural = offer == MediaType::Classic || specificity >= Specificity::Subtype;
        let better = best.is_none_or(|(held, held_natural, _)| match quality.total_cmp(&held) {
            Ordering::Greater => true,
            Ordering::Equal => natural && !held_natural,
            Ordering::Less => false,
        });
        if better {
            best = Some((quality, natural, offer));
        }
    }
    best.map_or(MediaType::Classic, |(_, _, offer)| offer)
}

/// Whether to send the body gzipped, from the values of all `Accept-Encoding` headers of a request.
///
/// Without the header, or where the plain body is liked better, no.
pub fn accepts_gzip<'a>(accept_encoding: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for header in accept_encoding {
        let header = String::from_utf8_lossy(header);
        for item in split(&header, ',') {
            let mut parts = split(item, ';').into_iter();
            let Some(coding) = parts.next() else { continue };
            let Some(quality) = parameters(parts).quality else { continue };
            match coding.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = Some(quality),
                "*" => any = Some(quality),
                "identity" => identity = Some(quality),
                _ => {}
            }
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

/// How closely a media range names a media type; the closest one decides (RFC 9110, 12.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    /// `*/*`
    Anything,
    /// `text/*`
    Type,
    /// `text/plain`
    Subtype,
    /// `text/plain;version=0.0.4`
    Version,
}

/// One item of an `Accept` header.
struct Range {
    kind: String,
    subtype: String,
    version: Option<String>,
    quality: f32,
}

impl Range {
    /// `None` for an item without a meaning: no slash, half a wildcard, a quality that is no quality.
    fn parse(item: &str) -> Option<Self> {
        let mut parts = split(item, ';').into_iter();
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let (kind, subtype) = (kind.trim().to_ascii_lowercase(), subtype.trim().to_ascii_lowercase());
        if kind.is_empty() || subtype.is_empty() || (kind == "*" && subtype != "*") {
            return None;
        }
        // All parameters but these two are left aside: `charset` because we only write UTF-8, `escaping`
        // because our names are the same under every scheme.
        let Parameters { version, quality } = parameters(parts);
        Some(Self { kind, subtype, version, quality: quality? })
    }

    /// How closely this range names `offer`; `None` if it does not cover it.
    fn covers(&self, offer: MediaType) -> Option<Specificity> {
        let (kind, subtype, version) = offer.parts();
        if self.kind == "*" {
            return Some(Specificity::Anything);
        }
        if self.kind != kind {
            return None;
        }
        if self.subtype == "*" {
            return Some(Specificity::Type);
        }
        match &self.version {
            _ if self.subtype != subtype => None,
            None => Some(Specificity::Subtype),
            Some(wanted) => (wanted == version).then_some(Specificity::Version),
        }
    }
}

/// What the closest of `ranges` says of `offer`.
fn quality_of(offer: MediaType, ranges: &[Range]) -> Option<(Specificity, f32)> {
    ranges
        .iter()
        .filter_map(|range| range.covers(offer).map(|specificity| (specificity, range.quality)))
        .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
}

/// The parameters of an item that matter here.
struct Parameters {
    version: Option<String>,
    /// 1 if not given, `None` if it cannot be read.
    quality: Option<f32>,
}

fn parameters<'a>(parts: impl Iterator<Item = &'a str>) -> Parameters {
    let mut found = Parameters { version: None, quality: Some(1.0) };
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        let value = unquote(value.trim());
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => found.quality = quality(&value),
            "version" => found.version = Some(value),
            _ => {}
        }
    }
    found
}

/// A quality between 0 and 1. Digits beyond the third and a missing zero (`.5`) are read, words, signs and
/// exponents are not.
fn quality(text: &str) -> Option<f32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    text.parse().ok().filter(|quality| (0.0..=1.0).contains(quality))
}

/// The text of a quoted string, or the text itself.
fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut escaped = false;
    inner
        .chars()
        .filter(|&c| {
            escaped = c == '\\' && !escaped;
            !escaped
        })
        .collect()
}

/// Splits at `separator` outside quoted strings.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::MediaType::{Classic, OpenMetrics001, OpenMetrics100};
    use super::*;
    use proptest::prelude::*;

    fn chosen(accept: &[&str]) -> MediaType {
        media_type(accept.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn real_scrapers() {
        let table = [
            // Prometheus 2.42
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics100,
            ),
            // Prometheus 3.5 and 3.9
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
                 escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics100,
            ),
            // the same with native histograms: protobuf comes first, and is not ours to write
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                 q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
                 escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics100,
            ),
            // a Prometheus told to scrape the classic format first
            (
                "text/plain;version=0.0.4;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
                 version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2",
                Classic,
            ),
            // Prometheus before OpenMetrics, vmagent, netdata
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Classic),
            // telegraf
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                 q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                Classic,
            ),
            // curl
            ("*/*", Classic),
            // browsers
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", Classic),
            // an old Java client
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", Classic),
        ];
        for (accept, expected) in table {
            assert_eq!(chosen(&[accept]), expected, "{accept}");
        }
    }

    #[test]
    fn single_rules() {
        let table: [(&[&str], MediaType); 41] = [
            (&[], Classic),
            (&[""], Classic),
            (&["application/openmetrics-text"], OpenMetrics100),
            (&["application/openmetrics-text;version=1.0.0"], OpenMetrics100),
            (&["application/openmetrics-text;version=0.0.1"], OpenMetrics001),
            (&["application/openmetrics-text;version=2.0.0"], Classic),
            (&["application/openmetrics-text;version=2.0.0,application/openmetrics-text"], OpenMetrics100),
            // the version liked better, and the later one of equals
            (
                &[
                    "application/openmetrics-text;version=0.0.1,application/openmetrics-text;version=1.0.0;q=0.5",
                ],
                OpenMetrics001,
            ),
            (
                &["application/openmetrics-text;version=0.0.1,application/openmetrics-text;version=1.0.0"],
                OpenMetrics100,
            ),
            // several headers are one list
            (&["text/plain;q=0.1", "application/openmetrics-text;q=0.2"], OpenMetrics100),
            // case and whitespace
            (&["  APPLICATION/OpenMetrics-Text ;\tVersion = 1.0.0 ; Q = 0.9 , */*;q=0.1"], OpenMetrics100),
            (&["text/plain;q=0.5 ,application/openmetrics-text ; q=0.6"], OpenMetrics100),
            // quoted strings
            (&["application/openmetrics-text;version=\"1.0.0\""], OpenMetrics100),
            (&["application/openmetrics-text;version=\"1.0\\.0\""], OpenMetrics100),
            (&["text/x;a=\",application/openmetrics-text,\""], Classic),
            (&["text/x;a=\"\\\",\",application/openmetrics-text"], OpenMetrics100),
            // parameters we do not know change nothing
            (&["application/openmetrics-text;charset=utf-8;escaping=dots;x"], OpenMetrics100),
            // qualities
            (&["application/openmetrics-text;q=0.4,text/plain;q=0.5"], Classic),
            (&["application/openmetrics-text;q=0.501,text/plain;q=0.5"], OpenMetrics100),
            (&["application/openmetrics-text;q=0.5,text/plain;q=0.5"], OpenMetrics100),
            (&["application/openmetrics-text;q=0.5,*/*;q=0.5"], OpenMetrics100),
            (&["application/openmetrics-text;q=0,*/*"], Classic),
            (&["application/openmetrics-text;q=0"], Classic),
            (&["application/openmetrics-text;q=0.000,text/plain;q=0"], Classic),
            (&["text/plain;q=0,*/*"], OpenMetrics100),
            (&["text/plain;version=0.0.4;q=0,text/plain;q=1,*/*;q=0.1"], OpenMetrics100),
            // wildcards
            (&["application/*"], OpenMetrics100),
            (&["text/*"], Classic),
            (&["application/*;q=0.5,text/*;q=0.5"], Classic),
            (&["application/*,*/*;q=0.1"], OpenMetrics100),
            (&["*/*;q=0"], Classic),
            // a text/plain that is not the one we write
            (&["text/plain;version=1.0.0"], Classic),
            (&["text/plain;version=1.0.0,application/openmetrics-text;q=0.2"], OpenMetrics100),
            // broken items are left out, the others count
            (&["application/openmetrics-text;q=high,text/plain;q=0.1"], Classic),
            (&["application/openmetrics-text;q=-1,text/plain;q=0.1"], Classic),
            (&["application/openmetrics-text;q=1e-1,text/plain;q=0.05"], Classic),
            (&["application/openmetrics-text;q=2,text/plain;q=0.1"], Classic),
            (&["application/openmetrics-text;q=,text/plain;q=0.1"], Classic),
            (&["*/openmetrics-text"], Classic),
            (&[",,;;=,/,;q=1,application/openmetrics-text"], OpenMetrics100),
            (&["application/openmetrics-text;version=\"1.0.0"], Classic),
        ];
        for (accept, expected) in table {
            assert_eq!(chosen(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(media_type([&b"\xff\xfe/\xff, application/openmetrics-text"[..]]), OpenMetrics100);
    }

    #[test]
    fn gzip() {
        let table: [(&[&str], bool); 17] = [
            (&[], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZip"], true),
            (&["x-gzip"], true),
            (&["deflate, gzip;q=1.0, *;q=0.5"], true),
            (&["gzip, deflate, br, zstd"], true),
            (&["deflate, br"], false),
            (&["gzip;q=0"], false),
            (&["gzip ; Q=0.000, *"], false),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["identity"], false),
            (&["identity, gzip;q=0.5"], false),
            (&["identity;q=0.5", "gzip;q=0.5"], true),
            (&["gzip;q=nonsense"], false),
            (&["identity;q=0"], false),
        ];
        for (accept, expected) in table {
            assert_eq!(accepts_gzip(accept.iter().map(|value| value.as_bytes())), expected, "{accept:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            media_type([bytes.as_slice()]);
            accepts_gzip([bytes.as_slice()]);
        }
    }
}
