//! Where settings come from: each source read into texts, with what it calls them.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::settings::{CONFIG_FILE, ENV_PREFIX, SETTINGS, Setting};

/// Largest file taken for a configuration; a named device must not be read forever.
const LARGEST_FILE: u64 = 1 << 20;

/// What the build reads, and so may still be set where the program is run.
const BUILD_VARIABLE: &str = "SKMEM_REVISION";

/// One thing wrong with the configuration, on one line: what, where, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key or variable, with its value where there is one.
    pub what: String,
    /// The layer, by the name under which it can be found.
    pub origin: String,
    /// What is wrong and what to do about it.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.what, self.origin, self.why)
    }
}

/// One setting as one layer gives it. Also a figment provider, so that the later layer wins and says its name.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    /// One text, or those of a list.
    pub(super) texts: Vec<String>,
    pub(super) origin: String,
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let nested = figment::util::nest(self.setting.key, Value::from(self.texts.clone()));
        Ok(nested.into_dict().map(|dict| Profile::Default.collect(dict)).unwrap_or_default())
    }
}

impl Given {
    /// Adds what is wrong with the texts to `problems`, whether or not a later layer outranks them.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        for refusal in self.setting.allowed.parse(&self.texts).err().into_iter().flatten() {
            problems.push(Problem {
                what: format!("{} = {:?}", self.setting.key, refusal.text),
                origin: self.origin.clone(),
                why: refusal.why,
            });
        }
    }
}

/// Where a setting comes from that nobody has set.
pub(super) const DEFAULT: &str = "default";

pub(super) fn defaults() -> Vec<Given> {
    let given = |setting: &'static Setting| {
        let texts = vec![setting.default?.to_owned()];
        Some(Given { setting, texts, origin: DEFAULT.to_owned() })
    };
    SETTINGS.iter().filter_map(given).collect()
}

/// Flags, in the order given; what is given again makes a list.
pub(super) fn flags(flags: impl IntoIterator<Item = (&'static Setting, String)>) -> Vec<Given> {
    let mut layer: Vec<Given> = Vec::new();
    for (setting, text) in flags {
        if let Some(given) = layer.iter_mut().find(|given| given.setting.key == setting.key) {
            given.texts.push(text);
        } else {
            layer.push(Given { setting, texts: vec![text], origin: format!("flag {}", setting.flag()) });
        }
    }
    layer
}

pub(super) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> Vec<Given> {
    let mut layer = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(ENV_PREFIX) || name == BUILD_VARIABLE {
            continue;
        }
        let Some(setting) = Setting::of_variable(&name) else {
            if !is_service_link(&name, &value.to_string_lossy()) {
                let known = SETTINGS.iter().map(Setting::variable);
                problems.push(Problem {
                    what: printable(&name),
                    origin: "environment".to_owned(),
                    why: format!("unknown variable; the nearest known is {}", nearest(&name, known)),
                });
            }
            continue;
        };
        let origin = format!("environment {name}");
        match value.into_string() {
            Ok(text) if setting.is_list() => {
                layer.push(Given { setting, texts: text.split(',').map(str::to_owned).collect(), origin });
            }
            Ok(text) => layer.push(Given { setting, texts: vec![text], origin }),
            Err(value) => problems.push(Problem {
                what: format!("{} = {:?}", setting.key, value.to_string_lossy()),
                origin,
                why: format!("is not UTF-8; use {}", setting.allowed),
            }),
        }
    }
    layer
}

/// Kubernetes puts variables of this shape into every container of a namespace that has a Service named
/// skmem-exporter (or skmem): nobody set them, so they are no mistake.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
        name.split_once("_PORT_").is_some_and(|(_, rest)| {
            let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            after.len() < rest.len() && after.starts_with(protocol)
        })
    });
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || of_port
        || (name.ends_with("_PORT") && is_url)
}

/// The layer of the file that `named` names.
pub(super) fn file(named: &Given, path: &Path, problems: &mut Vec<Problem>) -> Vec<Given> {
    let place = format!("file {}", printable(&path.to_string_lossy()));
    let text = match read(path) {
        Ok(text) => text,
        Err(why) => {
            problems.push(Problem {
                what: format!("{} = {:?}", named.setting.key, path.to_string_lossy()),
                origin: named.origin.clone(),
                why: format!("{why}; name a readable TOML file, or none"),
            });
            return Vec::new();
        }
    };
    match Toml::from_str::<Dict>(&text) {
        Ok(dict) => {
            let mut walk = Walk { place, layer: Vec::new(), problems };
            walk.table("", &dict);
            walk.layer
        }
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            problems.push(Problem {
                what: format!("line {line}, column {column}"),
                origin: place,
                why: format!(
                    "not valid TOML: {}; mend the line",
                    printable(&error.message().replace('\n', ", "))
                ),
            });
            Vec::new()
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    opened.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err("is larger than 1MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// A walk through a file's tables.
struct Walk<'a> {
    place: String,
    layer: Vec<Given>,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, dict: &Dict) {
        for (name, value) in dict {
            let key = format!("{prefix}{name}");
            let table = format!("{key}.");
            match (Setting::named(&key), value) {
                // The file cannot name itself or another.
                (Some(setting), _) if setting.key == CONFIG_FILE => {
                    let how = format!("use {} or {}", setting.flag(), setting.variable());
                    self.refuse(&key, format!("cannot be set in a file; {how}"));
                }
                (Some(setting), value) => self.setting(setting, value),
                // An empty table sets nothing, but its name may be the mistake.
                (None, Value::Dict(_, inner)) if !inner.is_empty() => self.table(&table, inner),
                (None, Value::Dict(..)) if is_table(&table) => {}
                (None, _) if is_table(&table) => {
                    self.refuse(&key, format!("is a table, not a value; put its settings below [{name}]"));
                }
                (None, _) => {
                    let known = SETTINGS.iter().filter(|setting| setting.key != CONFIG_FILE);
                    let nearest = nearest(&key, known.map(|setting| setting.key.to_owned()));
                    self.refuse(&key, format!("unknown key; the nearest known is {nearest}"));
                }
            }
        }
    }

    fn setting(&mut self, setting: &'static Setting, value: &Value) {
        let texts = match value {
            Value::Array(_, values) if setting.is_list() => values.iter().map(text).collect(),
            value => text(value).map(|text| vec![text]),
        };
        // `"a.b"` in quotes is one key to TOML, and another than `a.b`.
        if self.layer.iter().any(|given| given.setting.key == setting.key) {
            return self.refuse(setting.key, "is set twice; set it once".to_owned());
        }
        match texts {
            Some(texts) => self.layer.push(Given { setting, texts, origin: self.place.clone() }),
            None => self.refuse(
                setting.key,
                format!("is a table, a list or a date where one value belongs; use {}", setting.allowed),
            ),
        }
    }

    fn refuse(&mut self, key: &str, why: String) {
        self.problems.push(Problem { what: printable(key), origin: self.place.clone(), why });
    }
}

/// Whether some setting lies in the table, whose name ends in a dot.
fn is_table(table: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.starts_with(table) && setting.key != CONFIG_FILE)
}

/// A single value as one would write it in a flag.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(_, on) => Some(on.to_string()),
        Value::Num(_, number) => {
            let signed = number.to_i128().map(|number| number.to_string());
            let unsigned = || number.to_u128().map(|number| number.to_string());
            signed.or_else(unsigned).or_else(|| number.to_f64().map(|number| number.to_string()))
        }
        _ => None,
    }
}

/// The name most like `wrong`. A name without its table is compared with the last parts of the known ones, and
/// among names that are equally unlike, the same table is the better guess.
fn nearest(wrong: &str, known: impl Iterator<Item = String>) -> String {
    let dotted = |name: &str| {
        let name = name.strip_prefix(ENV_PREFIX).unwrap_or(name);
        name.replace(['_', '-'], ".").to_ascii_lowercase()
    };
    let wrong = dotted(wrong);
    let table = |name: &str| name.split_once('.').map(|(table, _)| table.to_owned());
    let likeness = |name: &String| {
        let name = dotted(name);
        let tail = name.split_once('.').map_or("", |(_, tail)| tail);
        let whole = strsim::normalized_damerau_levenshtein(&wrong, &name);
        let like = whole.max(strsim::normalized_damerau_levenshtein(&wrong, tail));
        if table(&wrong).is_some_and(|its| table(&name) == Some(its)) { like + 0.2 } else { like }
    };
    known.max_by(|one, other| likeness(one).total_cmp(&likeness(other))).unwrap_or_default()
}

/// Fit for one line: control characters escaped.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The file to read: the flag's, else the environment's. An invalid name is reported with the other values.
pub(super) fn named_file(layers: [&[Given]; 2]) -> Option<(&Given, PathBuf)> {
    let named = layers.into_iter().flatten().find(|given| given.setting.key == CONFIG_FILE)?;
    let path =
        named.setting.allowed.parse(&named.texts).ok().and_then(|value| PathBuf::try_from(value).ok())?;
    Some((named, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_name() {
        #[track_caller]
        fn check(wrong: &str, expect: &str) {
            assert_eq!(
                nearest(wrong, SETTINGS.iter().map(|setting| setting.key.to_owned())),
                expect,
                "{wrong}"
            );
        }
        check("web.listen-adress", "web.listen-address");
        check("web.listen_address", "web.listen-address");
        check("listen-address", "web.listen-address");
        check("Sample.Interval", "sample.interval");
        check("sample.intervall", "sample.interval");
        check("netn", "netns");
        check("log.lvl", "log.level");
        check("path.proc", "path.procfs");
        check("process.minimum", "process.min-memory");
        check("web.path", "web.telemetry-path");
        check("SKMEM_STALL", "stall.after");
    }

    #[test]
    fn tells_service_links_from_mistakes() {
        #[track_caller]
        fn check(name: &str, value: &str, expect: bool) {
            assert_eq!(is_service_link(name, value), expect, "{name}");
        }
        check("SKMEM_EXPORTER_SERVICE_HOST", "10.0.0.1", true);
        check("SKMEM_EXPORTER_SERVICE_PORT", "10477", true);
        check("SKMEM_EXPORTER_SERVICE_PORT_METRICS", "10477", true);
        check("SKMEM_EXPORTER_PORT", "tcp://10.0.0.1:10477", true);
        check("SKMEM_EXPORTER_PORT_10477_TCP", "tcp://10.0.0.1:10477", true);
        check("SKMEM_EXPORTER_PORT_10477_TCP_ADDR", "10.0.0.1", true);
        check("SKMEM_WEB_PORT", "10477", false);
        check("SKMEM_PORT", "10477", false);
        check("SKMEM_PORT_TCP", "10477", false);
        check("SKMEM_SAMPLE_INTERVALL", "15s", false);
    }

    #[test]
    fn says_numbers_as_one_would_write_them() {
        #[track_caller]
        fn check(toml: &str, expect: Option<&str>) {
            let dict: Dict = Toml::from_str(&format!("x = {toml}")).unwrap();
            assert_eq!(text(&dict["x"]).as_deref(), expect, "{toml}");
        }
        check("40", Some("40"));
        check("-1", Some("-1"));
        check("0x10", Some("16"));
        check("1.5", Some("1.5"));
        check("nan", Some("NaN"));
        check("inf", Some("inf"));
        check("true", Some("true"));
        check("\"a b\"", Some("a b"));
        check("[1]", None);
        check("{ a = 1 }", None);
        check("2020-01-01", None);
    }
}
