//! The dashboards as users import them, and the queries in them.

use std::path::Path;

use serde_json::Value;

/// One file below `dashboards/`.
#[derive(Debug)]
pub(crate) struct Dashboard {
    /// Name of the file.
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) json: Value,
}

/// One query and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// File, then the panel's title and the query's letter, or the variable's name.
    pub(crate) place: String,
    /// As it is written, with Grafana's variables.
    pub(crate) expr: String,
    /// A variable's, which is asked before any instance is chosen.
    pub(crate) is_variable: bool,
}

/// All of them, by name.
pub(crate) fn all() -> Vec<Dashboard> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut found: Vec<Dashboard> = std::fs::read_dir(directory)
        .expect("the directory of dashboards")
        .map(|entry| entry.expect("an entry").path())
        // Beside them is what makes ConfigMaps of them.
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let file = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            let text = std::fs::read_to_string(&path).expect("a readable dashboard");
            let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
            Dashboard { file, text, json }
        })
        .collect();
    found.sort_by(|one, other| one.file.cmp(&other.file));
    found
}

/// What is listed at `key`, nothing if that is absent.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The text at `key`, empty if that is absent.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

impl Dashboard {
    /// Rows and panels, those of collapsed rows after their row.
    pub(crate) fn everything(&self) -> impl Iterator<Item = &Value> {
        list(&self.json, "panels").iter().flat_map(|panel| [panel].into_iter().chain(list(panel, "panels")))
    }

    /// Panels without the rows.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Value> {
        self.everything().filter(|panel| panel["type"] != "row")
    }

    pub(crate) fn variables(&self) -> &[Value] {
        list(&self.json["templating"], "list")
    }

    /// Every query of every panel, variable and annotation.
    pub(crate) fn queries(&self) -> Vec<Query> {
        let mut queries = Vec::new();
        for panel in self.panels() {
            for target in list(panel, "targets") {
                let place = format!("{}: {} {}", self.file, text(panel, "title"), text(target, "refId"));
                queries.push(Query { place, expr: text(target, "expr").to_owned(), is_variable: false });
            }
        }
        for variable in self.variables().iter().filter(|variable| variable["type"] == "query") {
            let query = text(&variable["query"], "query");
            let place = format!("{}: variable {}", self.file, text(variable, "name"));
            let selector = query.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(", "));
            let (selector, _) = selector.unwrap_or_else(|| panic!("{place}: {query} has no label_values"));
            queries.push(Query { place, expr: selector.to_owned(), is_variable: true });
        }
        for annotation in list(&self.json["annotations"], "list") {
            if let Some(expr) = annotation["expr"].as_str() {
                let place = format!("{}: annotation {}", self.file, text(annotation, "name"));
                queries.push(Query { place, expr: expr.to_owned(), is_variable: false });
            }
        }
        queries
    }
}

/// A query with Grafana's variables replaced by these values.
///
/// # Panics
///
/// If it has any other.
pub(crate) fn substitute(query: &Query, values: &[(&str, &str)]) -> String {
    let expr = values.iter().fold(query.expr.clone(), |expr, (name, value)| {
        expr.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    });
    assert!(!expr.contains('$'), "{} has a variable that is not known: {expr}", query.place);
    expr
}
