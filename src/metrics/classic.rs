//! Prometheus text 0.0.4. prometheus-client writes OpenMetrics only, which a scraper that asked for this format
//! must not be given: it knows no UNIT, no `# EOF`, and names counters with their `_total` in HELP and TYPE.

use std::fmt::{self, Write};

use super::{Family, Number, Point};

/// The exposition of `families`.
pub(super) fn encode(families: &[Family<'_>]) -> String {
    let mut text = String::new();
    for family in families {
        // Writing to a String cannot fail.
        let _ = write_family(&mut text, family);
    }
    text
}

fn write_family(text: &mut String, family: &Family<'_>) -> fmt::Result {
    let metric = family.metric;
    write!(text, "# HELP {} ", metric.name)?;
    write_escaped(text, metric.help, false)?;
    writeln!(text, "\n# TYPE {} {}", metric.name, metric.kind.type_name())?;
    for Point { labels, number } in &family.points {
        text.write_str(metric.name)?;
        let mut separator = '{';
        for (label, value) in metric.labels.iter().zip(labels) {
            write!(text, "{separator}{}=\"", label.name)?;
            write_escaped(text, value, true)?;
            text.write_char('"')?;
            separator = ',';
        }
        if separator == ',' {
            text.write_char('}')?;
        }
        text.write_char(' ')?;
        write_number(text, *number)?;
        text.write_char('\n')?;
    }
    Ok(())
}

/// Backslash and newline are escaped everywhere, the quote only where quotes enclose the text.
fn write_escaped(text: &mut String, raw: &str, quoted: bool) -> fmt::Result {
    for piece in raw.split_inclusive(['\\', '\n', '"']) {
        let (plain, escaped) = match piece.as_bytes().last() {
            Some(b'\\') => (&piece[..piece.len() - 1], "\\\\"),
            Some(b'\n') => (&piece[..piece.len() - 1], "\\n"),
            Some(b'"') if quoted => (&piece[..piece.len() - 1], "\\\""),
            _ => (piece, ""),
        };
        text.write_str(plain)?;
        text.write_str(escaped)?;
    }
    Ok(())
}

/// The format reads numbers as Go does, and spells what is not a number its own way.
fn write_number(text: &mut String, number: Number) -> fmt::Result {
    match number {
        Number::Unsigned(value) => write!(text, "{value}"),
        Number::Signed(value) => write!(text, "{value}"),
        Number::Float(value) if value.is_nan() => text.write_str("NaN"),
        Number::Float(f64::INFINITY) => text.write_str("+Inf"),
        Number::Float(f64::NEG_INFINITY) => text.write_str("-Inf"),
        Number::Float(value) => write!(text, "{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: impl Into<Number>) -> String {
        let mut text = String::new();
        write_number(&mut text, value.into()).unwrap();
        text
    }

    #[test]
    fn numbers_are_spelled_as_the_format_wants_them() {
        assert_eq!(number(u64::MAX), "18446744073709551615");
        assert_eq!(number(i64::MIN), "-9223372036854775808");
        assert_eq!(number(1_700_000_000.25), "1700000000.25");
        assert_eq!(number(3.0), "3");
        assert_eq!(number(f64::INFINITY), "+Inf");
        assert_eq!(number(f64::NEG_INFINITY), "-Inf");
        assert_eq!(number(f64::NAN), "NaN");
        assert_eq!(number(-f64::NAN), "NaN");
    }

    #[test]
    fn help_keeps_its_quotes_and_labels_escape_them() {
        let (mut help, mut label) = (String::new(), String::new());
        write_escaped(&mut help, "a\"b\\c\nd", false).unwrap();
        write_escaped(&mut label, "a\"b\\c\nd", true).unwrap();
        assert_eq!(help, r#"a"b\\c\nd"#);
        assert_eq!(label, r#"a\"b\\c\nd"#);
    }
}
