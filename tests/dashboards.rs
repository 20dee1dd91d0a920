//! The dashboards ask for what there is, say what they show, and can be imported anywhere.

#[path = "support/dashboards.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use serde_json::{Value, json};
use skmem_exporter::metrics::catalog::{self, Kind, Metric, Values};
use support::{Dashboard, Query, list, substitute, text};

/// Series that recording rules make of the exporter's, and their labels beside job and instance.
const RECORDED: [(&str, &[&str]); 2] = [
    ("instance:skmem_tcp_memory:ratio", &[]),
    ("instance_cause:skmem_process_tcp_memory_bytes:sum", &["cause"]),
];

/// What no panel shows, and why.
const NOT_SHOWN: [(&str, &str); 1] =
    [("process_virtual_memory_bytes", "says nothing about an exporter that maps little and leaks nothing")];

/// Labels that Prometheus gives to every series it scrapes.
const TARGET: [&str; 2] = ["job", "instance"];

/// Panels that come with Grafana.
const CORE: [&str; 6] = ["bargauge", "gauge", "stat", "state-timeline", "table", "timeseries"];

/// Points in time that a panel of all hosts asks for at most: with 10,000 hosts and five counters of each, these are ten
/// million samples; Prometheus refuses to load more than fifty.
const FLEET_POINTS_MAX: u64 = 200;

/// What Grafana puts in for the variables: all of everything, and times that can be told from any other.
const VALUES: [(&str, &str); 5] = [
    ("__rate_interval", "1234s"),
    ("__range", "4321s"),
    ("instance", "VARIABLE-instance"),
    ("job", "VARIABLE-job"),
    ("process", "VARIABLE-process"),
];

fn dashboards() -> Vec<Dashboard> {
    let found = support::all();
    let files: Vec<&str> = found.iter().map(|dashboard| dashboard.file.as_str()).collect();
    assert_eq!(files, ["skmem-fleet.json", "skmem-host.json"]);
    found
}

fn parse(query: &Query) -> Expr {
    let expr = substitute(query, &VALUES);
    parser::parse(&expr).unwrap_or_else(|error| panic!("{}: {error}: {}", query.place, query.expr))
}

/// A selector, and the functions and aggregations around it, innermost last.
struct Selected<'a> {
    selector: &'a VectorSelector,
    range: Option<u64>,
    around: Vec<String>,
}

/// What an expression selects, and each label that it groups or matches by.
#[derive(Default)]
struct Parts<'a> {
    selected: Vec<Selected<'a>>,
    labels: BTreeSet<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(expr: &'a Expr) -> Self {
        let mut parts = Self::default();
        parts.walk(expr, &[]);
        parts
    }

    fn walk(&mut self, expr: &'a Expr, around: &[String]) {
        let inside = |name: String| [around, &[name]].concat();
        match expr {
            Expr::Aggregate(aggregate) => {
                let around = inside(aggregate.op.to_string());
                self.name(aggregate.modifier.as_ref());
                aggregate.param.iter().for_each(|param| self.walk(param, &around));
                self.walk(&aggregate.expr, &around);
            }
            Expr::Binary(binary) => {
                if let Some(modifier) = &binary.modifier {
                    self.name(modifier.matching.as_ref());
                    let carried = modifier.card.labels().into_iter().flat_map(|labels| &labels.labels);
                    self.labels.extend(carried.map(String::as_str));
                }
                self.walk(&binary.lhs, around);
                self.walk(&binary.rhs, around);
            }
            Expr::Call(call) => {
                let around = inside(call.func.name.to_owned());
                call.args.args.iter().for_each(|argument| self.walk(argument, &around));
            }
            Expr::Unary(unary) => self.walk(&unary.expr, around),
            Expr::Paren(paren) => self.walk(&paren.expr, around),
            Expr::Subquery(subquery) => self.walk(&subquery.expr, around),
            Expr::VectorSelector(selector) => {
                self.selected.push(Selected { selector, range: None, around: around.to_vec() });
            }
            Expr::MatrixSelector(matrix) => self.selected.push(Selected {
                selector: &matrix.vs,
                range: Some(matrix.range.as_secs()),
                around: around.to_vec(),
            }),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
    }

    fn name(&mut self, modifier: Option<&'a LabelModifier>) {
        let labels = modifier.into_iter().flat_map(|modifier| &modifier.labels().labels);
        self.labels.extend(labels.map(String::as_str));
    }
}

/// The labels of a metric that there is, beside job and instance.
fn labels_of(name: &str) -> Option<Vec<&'static str>> {
    let recorded = RECORDED.iter().find(|(recorded, _)| *recorded == name).map(|(_, labels)| labels.to_vec());
    metric(name).map(|metric| metric.labels.iter().map(|label| label.name).collect()).or(recorded)
}

fn metric(name: &str) -> Option<&'static Metric> {
    catalog::all().find(|metric| metric.name == name)
}

fn name<'a>(query: &Query, selector: &'a VectorSelector) -> &'a str {
    selector.name.as_deref().unwrap_or_else(|| panic!("{}: a selector without a name", query.place))
}

/// The values that a matcher names, if its label is one whose values are known.
fn named(metric: &Metric, matcher: &Matcher) -> Option<(Vec<&'static str>, Vec<String>)> {
    let label = metric.labels.iter().find(|label| label.name == matcher.name)?;
    let Values::Closed(values) = label.values else { return None };
    let named = match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![matcher.value.clone()],
        MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').map(str::to_owned).collect(),
    };
    Some((values(), named))
}

#[test]
fn queries_ask_for_what_there_is() {
    for query in dashboards().iter().flat_map(Dashboard::queries) {
        let (place, expr) = (&query.place, parse(&query));
        let parts = Parts::of(&expr);
        assert!(!parts.selected.is_empty(), "{place} asks for nothing");
        let mut known: BTreeSet<&str> = TARGET.into();
        for Selected { selector, .. } in &parts.selected {
            let name = name(&query, selector);
            let labels = labels_of(name).unwrap_or_else(|| panic!("{place}: there is no {name}"));
            assert!(selector.matchers.or_matchers.is_empty(), "{place}: matchers joined by or");
            for matcher in &selector.matchers.matchers {
                let label = matcher.name.as_str();
                assert!(
                    labels.contains(&label) || TARGET.contains(&label),
                    "{place}: {name} has no label {label}"
                );
                let Some((values, named)) = metric(name).and_then(|metric| named(metric, matcher)) else {
                    continue;
                };
                for value in named {
                    assert!(values.contains(&value.as_str()), "{place}: no {name} has {label}={value}");
                }
            }
            known.extend(labels);
        }
        let unknown: Vec<_> = parts.labels.difference(&known).collect();
        assert!(unknown.is_empty(), "{place}: none of its series has {unknown:?}");
    }
}

#[test]
fn queries_keep_to_the_chosen_jobs_and_instances() {
    for query in dashboards().iter().flat_map(Dashboard::queries) {
        let expr = parse(&query);
        for Selected { selector, .. } in Parts::of(&expr).selected {
            for label in TARGET {
                // Which jobs there are cannot depend on one, nor which instances on an instance.
                if query.is_variable && query.place.ends_with(" job")
                    || query.is_variable && query.place.ends_with(" instance") && label == "instance"
                {
                    continue;
                }
                let value = format!("VARIABLE-{label}");
                let mut matchers = selector.matchers.matchers.iter().filter(|one| one.name == label);
                let matcher = matchers.next();
                assert!(
                    matcher.is_some_and(|one| matches!(one.op, MatchOp::Re(_)) && one.value == value)
                        && matchers.next().is_none(),
                    "{}: {} needs {label}=~\"${label}\"",
                    query.place,
                    name(&query, selector)
                );
            }
        }
    }
}

#[test]
fn counters_are_rates_over_what_grafana_says() {
    for query in dashboards().iter().flat_map(Dashboard::queries) {
        let expr = parse(&query);
        for Selected { selector, range, around } in Parts::of(&expr).selected {
            let (place, name) = (&query.place, name(&query, selector));
            let function = around.last().map(String::as_str).unwrap_or_default();
            let is_rate = function == "rate";
            assert!(!is_rate || range == Some(1234), "{place}: rates are over [$__rate_interval]");
            assert!(range.is_none_or(|range| range == 1234 || range == 4321), "{place}: a fixed range");
            let is_counter = metric(name).is_some_and(|metric| metric.kind == Kind::Counter);
            assert_eq!(is_counter, is_rate, "{place}: {name} in {function}()");
        }
    }
}

#[test]
fn everything_is_shown_or_left_out_with_a_reason() {
    let queries: Vec<Query> = dashboards().iter().flat_map(Dashboard::queries).collect();
    let mut asked = BTreeSet::new();
    for query in &queries {
        let expr = parse(query);
        asked.extend(
            Parts::of(&expr).selected.iter().map(|selected| name(query, selected.selector).to_owned()),
        );
    }
    let missing: BTreeSet<_> =
        catalog::all().map(|metric| metric.name).filter(|name| !asked.contains(*name)).collect();
    assert_eq!(missing, NOT_SHOWN.map(|(name, _)| name).into());
}

/// `{{label}}` of a legend, and the columns of a table, are of labels that the series have.
#[test]
fn legends_and_columns_are_there() {
    for dashboard in dashboards() {
        for panel in dashboard.panels() {
            let title = format!("{}: {}", dashboard.file, text(panel, "title"));
            let queries: BTreeMap<&str, Query> = list(panel, "targets")
                .iter()
                .map(|target| {
                    let expr = text(target, "expr").to_owned();
                    (text(target, "refId"), Query { place: title.clone(), expr, is_variable: false })
                })
                .collect();
            let mut columns: BTreeSet<String> = ["Time", "__name__"].map(str::to_owned).into();
            for target in list(panel, "targets") {
                let query = &queries[text(target, "refId")];
                let expr = parse(query);
                let labels: BTreeSet<&str> = Parts::of(&expr)
                    .selected
                    .iter()
                    .flat_map(|selected| labels_of(name(query, selected.selector)).unwrap_or_default())
                    .chain(TARGET)
                    .collect();
                let legend = text(target, "legendFormat");
                for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
                    assert!(labels.contains(label), "{title}: no {label} for the legend {legend}");
                }
                if panel["type"] == "timeseries" || panel["type"] == "state-timeline" {
                    assert!(!legend.is_empty() && legend != "__auto", "{title}: a line without a legend");
                }
                columns.extend(labels.into_iter().map(str::to_owned));
                columns.insert(if queries.len() == 1 {
                    "Value".to_owned()
                } else {
                    format!("Value #{}", text(target, "refId"))
                });
            }
            if panel["type"] != "table" {
                continue;
            }
            let organize = list(panel, "transformations").last().expect("an order of columns");
            assert_eq!(organize["id"], "organize", "{title}");
            let options = &organize["options"];
            let object = |key: &str| options[key].as_object().expect("names").clone();
            for column in object("renameByName").keys().chain(object("excludeByName").keys()) {
                assert!(columns.contains(column), "{title}: no column {column}");
            }
            let shown: Vec<Value> = object("renameByName").into_iter().map(|(_, name)| name).collect();
            let overridden =
                list(&panel["fieldConfig"], "overrides").iter().map(|one| &one["matcher"]["options"]);
            let sorted = list(&panel["options"], "sortBy").iter().map(|one| &one["displayName"]);
            for name in overridden.chain(sorted) {
                assert!(shown.contains(name), "{title}: no column is called {name}");
            }
        }
    }
}

#[test]
fn panels_say_what_they_show() {
    let datasource = json!({ "type": "prometheus", "uid": "${datasource}" });
    for dashboard in dashboards() {
        let mut titles = BTreeSet::new();
        for panel in dashboard.panels() {
            let title = text(panel, "title");
            let place = format!("{}: {title:?}", dashboard.file);
            assert!(!title.is_empty() && titles.insert(title), "{place}: no title of its own");
            let description = text(panel, "description");
            assert!(description.len() > 20 && description.ends_with('.'), "{place}: no description");
            assert!(
                dashboard.file != "skmem-fleet.json" || description.contains("Cost: "),
                "{place}: what does it cost where there are many hosts?"
            );
            let asks_over_time = list(panel, "targets").iter().any(|target| target["range"] == true);
            assert!(
                dashboard.file != "skmem-fleet.json"
                    || !asks_over_time
                    || panel["maxDataPoints"].as_u64().is_some_and(|points| points <= FLEET_POINTS_MAX),
                "{place}: a wide screen asks for a thousand points of each host"
            );
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!text(defaults, "unit").is_empty(), "{place}: no unit");
            assert_eq!(panel["datasource"], datasource, "{place}");
            assert!(CORE.contains(&text(panel, "type")), "{place}: a plugin is needed");
            let mut letters = BTreeSet::new();
            assert!(!list(panel, "targets").is_empty(), "{place}: no query");
            for target in list(panel, "targets") {
                assert_eq!(target["datasource"], datasource, "{place}");
                assert!(letters.insert(text(target, "refId")), "{place}: two queries of one letter");
                let is_instant = target["instant"] == true;
                assert_eq!(target["range"], !is_instant, "{place}");
                let is_over_time = ["timeseries", "state-timeline"].contains(&text(panel, "type"));
                assert!(!(is_instant && is_over_time), "{place}: one point is no line");
                assert!(is_instant || text(panel, "type") != "table", "{place}: a row for each moment");
            }
        }
        for row in dashboard.everything().filter(|panel| panel["type"] == "row") {
            assert!(!text(row, "title").is_empty(), "{}: a row without a title", dashboard.file);
        }
    }
}

#[test]
fn panels_have_places_and_ids_of_their_own() {
    const COLUMNS: u64 = 24;
    for dashboard in dashboards() {
        let mut ids = BTreeSet::new();
        for panel in dashboard.everything() {
            let title = format!("{}: {}", dashboard.file, text(panel, "title"));
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another's");
            let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
            assert!(
                at("w") > 0 && at("h") > 0 && at("x") + at("w") <= COLUMNS,
                "{title}: outside of the grid"
            );
        }
        // What is in a collapsed row lies over what comes below it until the row is opened.
        let rows = list(&dashboard.json, "panels").iter().map(|row| list(row, "panels"));
        for together in rows.chain([list(&dashboard.json, "panels")]) {
            let mut taken = BTreeMap::new();
            for panel in together {
                let (place, title) = (&panel["gridPos"], text(panel, "title"));
                let along = |from: &str, by: &str| {
                    let from = place[from].as_u64().unwrap_or_default();
                    from..from + place[by].as_u64().unwrap_or_default()
                };
                for cell in along("x", "w").flat_map(|x| along("y", "h").map(move |y| (x, y))) {
                    if let Some(other) = taken.insert(cell, title) {
                        panic!("{}: {title} lies over {other}", dashboard.file);
                    }
                }
            }
        }
    }
}

#[test]
fn they_can_be_imported_anywhere() {
    for dashboard in dashboards() {
        let Dashboard { file, json, .. } = &dashboard;
        assert_eq!(format!("{}.json", text(json, "uid")), *file);
        assert_eq!(json["id"], Value::Null, "{file}: an id is given by each Grafana");
        assert_eq!(json["editable"], false, "{file}: what is edited is lost with the next version");
        // Grafana 10 and later; older files are brought up to date by them.
        assert!((38..=41).contains(&json["schemaVersion"].as_u64().unwrap()), "{file}");
        assert!(!text(json, "title").is_empty() && !text(json, "description").is_empty(), "{file}");
        for asked_at_import in ["__inputs", "__requires", "__elements"] {
            assert!(json.get(asked_at_import).is_none(), "{file}: {asked_at_import}");
        }
        let annotations = list(&json["annotations"], "list");
        assert!(matches!(annotations, [builtin] if builtin["builtIn"] == 1), "{file}: {annotations:?}");
    }
}

#[test]
fn variables_are_those_of_the_field() {
    for dashboard in dashboards() {
        let file = &dashboard.file;
        let names: Vec<&str> = dashboard.variables().iter().map(|variable| text(variable, "name")).collect();
        assert!(names.starts_with(&["datasource", "job", "instance"]), "{file}: {names:?}");
        for variable in dashboard.variables() {
            let name = text(variable, "name");
            assert!(
                !text(variable, "label").is_empty() && !text(variable, "description").is_empty(),
                "{name}"
            );
            if name == "datasource" {
                assert_eq!(
                    (text(variable, "type"), text(variable, "query")),
                    ("datasource", "prometheus"),
                    "{file}"
                );
                continue;
            }
            assert!(VALUES.iter().any(|(known, _)| *known == name), "{file}: {name}");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{file}: {name}");
            assert_eq!(variable["multi"], true, "{file}: {name}");
            // Read again when the time range changes, or those of yesterday cannot be chosen.
            assert_eq!(variable["refresh"], 2, "{file}: {name}");
            let query = text(&variable["query"], "query");
            assert!(query.ends_with(&format!(", {name})")), "{file}: {name} has values of {query}");
        }
        for query in dashboard.queries() {
            for (name, _) in VALUES.iter().filter(|(name, _)| !name.starts_with("__")) {
                assert!(
                    !query.expr.contains(&format!("${name}")) || names.contains(name),
                    "{}: no variable {name}",
                    query.place
                );
            }
        }
    }
}

/// Every URL found anywhere below `value`.
fn urls<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("url").and_then(Value::as_str));
            object.values().for_each(|value| urls(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| urls(value, found)),
        _ => {}
    }
}

/// A link leads to the other dashboard, whose variables it sets.
#[test]
fn links_lead_to_the_other_one() {
    let dashboards = dashboards();
    for from in &dashboards {
        let mut found = Vec::new();
        urls(&from.json, &mut found);
        assert!(!found.is_empty(), "{} leads nowhere", from.file);
        for url in found {
            let (uid, parameters) =
                url.strip_prefix("/d/").and_then(|rest| rest.split_once('?')).expect("a dashboard");
            let to = dashboards.iter().find(|to| text(&to.json, "uid") == uid);
            let to = to.unwrap_or_else(|| panic!("{}: there is no {uid}", from.file));
            assert_ne!(to.file, from.file);
            let has = |name: &str| to.variables().iter().any(|variable| text(variable, "name") == name);
            for parameter in parameters.split('&') {
                let name = parameter.strip_prefix("var-").and_then(|rest| rest.split('=').next());
                let name = name.or_else(|| parameter.strip_prefix("${")?.strip_suffix(":queryparam}"));
                assert!(
                    parameter == "${__url_time_range}" || name.is_some_and(has),
                    "{}: {parameter} says nothing to {uid}",
                    from.file
                );
            }
            assert!(parameters.contains("${datasource:queryparam}"), "{}: {url}", from.file);
        }
    }
}

/// Two spaces, keys in the order of the alphabet, as Grafana exports them: a change is then all that a diff shows.
#[test]
fn files_are_written_one_way() {
    for dashboard in dashboards() {
        let mut sorted = dashboard.json.clone();
        sorted.sort_all_objects();
        let wanted = serde_json::to_string_pretty(&sorted).unwrap() + "\n";
        let line = dashboard.text.lines().zip(wanted.lines()).position(|(there, wanted)| there != wanted);
        assert!(dashboard.text == wanted, "{}: differs from line {line:?} on", dashboard.file);
    }
}

#[test]
fn what_they_expect_to_be_recorded_is() {
    let rules =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/alerts/skmem.rules.yml")).unwrap();
    for (name, _) in RECORDED {
        assert!(
            rules.lines().any(|line| line.trim() == format!("- record: {name}")),
            "no rule records {name}"
        );
    }
}
