//! The schema of a report is written down, and reports keep to it.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

#[path = "support/metrics/golden.rs"]
mod golden;
#[path = "support/host.rs"]
#[allow(dead_code)]
mod host;
#[path = "support/report.rs"]
#[allow(dead_code)]
mod report;

use std::time::Duration;

use serde_json::Value;
use skmem_exporter::report::{Context, Mode, Report};
use skmem_exporter::sampler::Publication;

fn publication() -> Publication {
    Publication::new(Context {
        mode: Mode::Daemon,
        hostname: "recorded".to_owned(),
        interval: Duration::from_secs(15),
        stall_after: Duration::from_secs(30),
        missing: Vec::new(),
    })
}

/// The report as JSON, which is valid and reads back as the same report.
#[track_caller]
fn check(report: &Report) -> Value {
    let schema = serde_json::to_value(Report::schema()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let json = serde_json::to_value(report).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_eq!(serde_json::from_value::<Report>(json.clone()).unwrap(), *report);
    json
}

#[test]
fn the_schema_is_written_down() {
    let mut text = serde_json::to_string_pretty(&Report::schema()).unwrap();
    text.push('\n');
    golden::check("docs/report.schema.json", &text);
}

#[test]
fn a_report_before_the_first_sample_is_valid() {
    check(&publication().report());
}

#[test]
fn reports_of_a_recorded_host_are_valid() {
    let mut publication = publication();
    for reading in host::readings() {
        publication.absorb(reading, 0);
        let json = check(&publication.report());
        assert!(json["processes"].as_array().unwrap().len() > 1);
    }
}

#[test]
fn a_report_with_everything_in_it_is_valid() {
    let busy = report::busy();
    let json = check(&busy);
    assert_eq!(json["processes"][0]["connections"][0]["remote"], "198.51.100.7:40000");
    let hidden = check(&busy.without_addresses());
    assert_eq!(hidden["areAddressesHidden"], true);
    assert!(!hidden.to_string().contains("198.51.100."), "nobody learns who talks to whom");
    assert_eq!(hidden["processes"][0]["listeners"][0]["local"], "[::]:8443", "listeners are the host's own");
}

#[test]
fn a_report_that_lacks_something_is_not_valid() {
    let schema = serde_json::to_value(Report::schema()).unwrap();
    let mut json = serde_json::to_value(report::busy()).unwrap();
    assert!(jsonschema::is_valid(&schema, &json));
    json["host"]["processBytes"] = "much".into();
    assert!(!jsonschema::is_valid(&schema, &json));
}
