//! What is deployed beside the daemon is made from the project's own files. `make kubernetes` checks the rest, with the
//! tools that render and validate.

use std::fs;
use std::path::Path;

use serde_json::Value;

#[path = "support/metrics/golden.rs"]
mod golden;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const RULES: &str = "alerts/skmem.rules.yml";
const PROMETHEUS_RULE: &str = "deploy/kubernetes/components/prometheus-operator/prometheusrule.yaml";
const CHART: &str = "deploy/helm/skmem-exporter";

/// What stands before the groups of the rule file.
const PROMETHEUS_RULE_HEAD: &str = "\
# Written from alerts/skmem.rules.yml, with its comments. To change it: change that file, then run: make bless
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: skmem-exporter
  labels:
    app.kubernetes.io/name: skmem-exporter
    app.kubernetes.io/instance: skmem-exporter
    app.kubernetes.io/component: exporter
    app.kubernetes.io/part-of: skmem-exporter
    app.kubernetes.io/version: $VERSION
spec:
";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

/// The rule file's groups, two columns further in.
#[test]
fn the_operators_rules_are_the_alerts() {
    let rules = read(RULES);
    let groups = &rules[rules.find("\ngroups:\n").expect("groups") + 1..];
    let mut text = PROMETHEUS_RULE_HEAD.replace("$VERSION", env!("CARGO_PKG_VERSION"));
    for line in groups.lines() {
        let indent = if line.is_empty() { "" } else { "  " };
        text.extend([indent, line, "\n"]);
    }
    golden::check(PROMETHEUS_RULE, &text);

    let groups = yaml(&rules)["groups"].clone();
    assert!(groups.as_array().is_some_and(|groups| groups.len() > 3), "the search works");
    assert_eq!(yaml(&read(PROMETHEUS_RULE))["spec"]["groups"], groups);
}

/// The chart has them by symbolic link, so that there is no copy that could grow old.
#[test]
fn the_charts_files_are_the_projects() {
    let mut linked = vec![(format!("{CHART}/files/skmem.rules.yml"), RULES.to_owned())];
    let mut dashboards = 0;
    for entry in fs::read_dir(Path::new(ROOT).join("dashboards")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|extension| extension == "json") {
            dashboards += 1;
            linked.push((format!("{CHART}/files/{name}"), format!("dashboards/{name}")));
            let generators = &yaml(&read("dashboards/kustomization.yaml"))["configMapGenerator"];
            let is_named = |generator: &Value| generator["files"] == serde_json::json!([name]);
            assert!(generators.as_array().unwrap().iter().any(is_named), "{name} is in no ConfigMap");
        }
    }
    assert!(dashboards >= 2, "the search works");
    for (link, file) in linked {
        let target =
            fs::canonicalize(Path::new(ROOT).join(&link)).unwrap_or_else(|error| panic!("{link}: {error}"));
        assert_eq!(target, fs::canonicalize(Path::new(ROOT).join(file)).unwrap(), "{link}");
    }
}

/// One version everywhere.
#[test]
fn manifests_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let base = yaml(&read("deploy/kubernetes/base/kustomization.yaml"));
    assert_eq!(base["images"][0]["newTag"], version);
    assert_eq!(base["labels"][1]["pairs"]["app.kubernetes.io/version"], version);
    let monitor = yaml(&read("deploy/kubernetes/components/prometheus-operator/podmonitor.yaml"));
    assert_eq!(monitor["metadata"]["labels"]["app.kubernetes.io/version"], version);
    let chart = yaml(&read(&format!("{CHART}/Chart.yaml")));
    let quota = yaml(&read("deploy/kubernetes/components/priority-quota/resourcequota.yaml"));
    assert_eq!(quota["metadata"]["labels"]["app.kubernetes.io/version"], version);
    let dockerfile = read("Dockerfile");
    let versions: Vec<_> = dockerfile.lines().filter_map(|line| line.strip_prefix("ARG VERSION=")).collect();
    assert_eq!(versions, [version]);
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
}
