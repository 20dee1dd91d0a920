//! A reader of both text formats that shares nothing with the writers, and accepts nothing they need not write.

/// One family as it was read.
#[derive(Debug, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) series: Vec<Series>,
}

/// One line.
#[derive(Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: String,
}

/// Reads OpenMetrics; says which line is wrong.
pub(crate) fn openmetrics(text: &str) -> Result<Vec<Family>, String> {
    families(text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?)
}

/// Reads text 0.0.4, where `# UNIT` and `# EOF` would only be comments, and must not be.
pub(crate) fn classic(text: &str) -> Result<Vec<Family>, String> {
    let families = families(text)?;
    match families.iter().find(|family| family.unit.is_some()) {
        Some(family) => Err(format!("{} has a unit", family.name)),
        None => Ok(families),
    }
}

fn families(text: &str) -> Result<Vec<Family>, String> {
    let mut families: Vec<Family> = Vec::new();
    let Some(lines) = text.strip_suffix('\n') else {
        return if text.is_empty() { Ok(families) } else { Err("no newline at the end".into()) };
    };
    // Split at the newline alone: lines() would take a carriage return in a label for the end of a line.
    for line in lines.split('\n') {
        line_into(&mut families, line).ok_or_else(|| format!("cannot read {line:?}"))?;
    }
    Ok(families)
}

fn line_into(families: &mut Vec<Family>, line: &str) -> Option<()> {
    if let Some(rest) = line.strip_prefix("# HELP ") {
        let (name, help) = rest.split_once(' ')?;
        if families.iter().any(|family| family.name == name) {
            return None;
        }
        families.push(Family {
            name: name.to_owned(),
            help: help.to_owned(),
            kind: String::new(),
            unit: None,
            series: Vec::new(),
        });
        return Some(());
    }
    let family = families.last_mut()?;
    let metadata = |rest: &str| {
        let (name, value) = rest.split_once(' ')?;
        (name == family.name && family.series.is_empty()).then(|| value.to_owned())
    };
    if let Some(rest) = line.strip_prefix("# TYPE ") {
        family.kind = metadata(rest)?;
    } else if let Some(rest) = line.strip_prefix("# UNIT ") {
        family.unit = Some(metadata(rest)?);
    } else {
        let series = series(line)?;
        let suffix = series.name.strip_prefix(&family.name)?;
        if !matches!((family.kind.as_str(), suffix), (_, "") | ("counter", "_total")) {
            return None;
        }
        family.series.push(series);
    }
    Some(())
}

fn series(line: &str) -> Option<Series> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if rest.starts_with('{') {
        loop {
            let (label, after) = rest[1..].split_once("=\"")?;
            let (value, after) = unescape(after)?;
            labels.push((label.to_owned(), value));
            rest = after;
            match rest.as_bytes().first()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?;
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace());
    plain.then(|| Series { name: name.to_owned(), labels, value: value.to_owned() })
}

/// The label value up to its closing quote, and what follows the quote.
fn unescape(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &quoted[at + 1..])),
            (_, '\\') => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            (_, plain) => value.push(plain),
        }
    }
}

/// The number a value stands for, for both formats' spellings of what is none.
pub(crate) fn number(value: &str) -> Option<f64> {
    match value {
        "NaN" => Some(f64::NAN),
        "+Inf" | "inf" => Some(f64::INFINITY),
        "-Inf" | "-inf" => Some(f64::NEG_INFINITY),
        _ => value.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}
