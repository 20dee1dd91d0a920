//! The daemon's report, taken only if it answers the question.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;

use crate::config::ListenAddress;
use crate::http::{AskError, ask_daemon};
use crate::human;
use crate::kernel::diag::listening_users;
use crate::report::{Report, SCHEMA_VERSION};

/// Where the daemon serves its report.
const PATH: &str = "/api/v1/report";

/// A sample may be this many intervals old: one that takes long, and one that was given up, are no reason to look again.
const FRESH_INTERVALS: f64 = 3.0;

/// Why the daemon's report is not taken.
#[derive(Debug, PartialEq)]
pub enum No {
    /// There is no daemon.
    Nobody,
    /// There is somebody. Without a full stop.
    Because(String),
}

/// Users that systemd gives to services with DynamicUser= and to nobody else.
const DYNAMIC_USERS: RangeInclusive<u32> = 61184..=65519;
/// More than a dump of listeners takes.
const DEADLINE: Duration = Duration::from_secs(1);

/// Whether whoever listens there may tell us what to do: the port is one that any user can take while no daemon runs, and
/// a report has commands for root in it.
fn trust(listen: &ListenAddress) -> Result<(), No> {
    let users = listening_users(listen.port(), Instant::now() + DEADLINE)
        .map_err(|error| No::Because(format!("{listen}: cannot see who listens there: {error}")))?;
    if users.is_empty() {
        return Err(No::Nobody);
    }
    match stranger(&users, rustix::process::geteuid().as_raw()) {
        None => Ok(()),
        Some(user) => Err(No::Because(format!(
            "{listen} is served by the user {user}, who is neither root nor you nor a service of systemd's"
        ))),
    }
}

/// Whoever among the users may not tell `own` what to do.
fn stranger(users: &[u32], own: u32) -> Option<u32> {
    users.iter().copied().find(|user| *user != 0 && *user != own && !DYNAMIC_USERS.contains(user))
}

/// Asks the daemon that listens on `listen`.
pub async fn daemon(listen: &ListenAddress, web_config: Option<&Path>) -> Result<Report, No> {
    trust(listen)?;
    let body = ask_daemon(listen, web_config, PATH).await.map_err(|error| match error {
        AskError::Nobody(_) => No::Nobody,
        other => No::Because(human::printable(&other.to_string()).into_owned()),
    })?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    judge(&body, now.as_secs_f64()).map_err(|why| No::Because(format!("{listen} {why}")))
}

/// What every version of the schema begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: u32,
    generator: Maker,
}

#[derive(Deserialize)]
struct Maker {
    name: String,
}

/// The report in `body`, if it is one of ours and tells of now.
fn judge(body: &[u8], now: f64) -> Result<Report, String> {
    let head: Head = serde_json::from_slice(body).map_err(|_| "answers with something else".to_owned())?;
    if head.generator.name != env!("CARGO_PKG_NAME") {
        return Err("is another program".to_owned());
    }
    if head.schema_version != SCHEMA_VERSION {
        let theirs = head.schema_version;
        return Err(format!("speaks version {theirs} of the report, this program version {SCHEMA_VERSION}"));
    }
    let report: Report =
        serde_json::from_slice(body).map_err(|error| format!("says what is no report: {error}"))?;
    let watch = report.watch;
    let Some(timestamp) = report.timestamp else {
        return Err("has no complete sample yet".to_owned());
    };
    let age = now - timestamp;
    if age > FRESH_INTERVALS * watch.interval_seconds {
        return Err(format!("has no sample newer than {age:.0} s"));
    }
    if watch.seconds < watch.stall_after_seconds {
        let (watched, needed) = (watch.seconds, watch.stall_after_seconds);
        return Err(format!("has watched for {watched:.0} s only, a stall shows after {needed:.0} s"));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::report::{Context, Mode, compose};
    use crate::sample::Exposed;
    use crate::series::Series;

    /// A report that is taken at 1000.
    fn report() -> Value {
        let context = Context {
            mode: Mode::Daemon,
            hostname: "host".to_owned(),
            interval: Duration::from_secs(15),
            stall_after: Duration::from_secs(30),
            missing: Vec::new(),
        };
        let mut report = compose(&context, &Series::new(context.interval), &Exposed::default());
        report.timestamp = Some(990.0);
        report.watch.seconds = 45.0;
        serde_json::to_value(report).unwrap()
    }

    #[test]
    fn strangers_are_not_believed() {
        assert_eq!(stranger(&[0, 1000, 61_500], 1000), None);
        assert_eq!(stranger(&[0, 1001], 0), Some(1001));
        assert_eq!(stranger(&[65_534], 1000), Some(65_534), "nobody is anybody");
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Value), expect: &str) {
        let mut json = report();
        change(&mut json);
        let answer = judge(json.to_string().as_bytes(), 1000.0);
        assert_eq!(answer.map(|report| report.hostname), Err(expect.to_owned()));
    }

    #[test]
    fn a_report_that_answers_the_question_is_taken() {
        let taken = judge(report().to_string().as_bytes(), 1000.0).unwrap();
        assert_eq!((taken.hostname.as_str(), taken.generator.mode), ("host", Mode::Daemon));
        let mut with_more = report();
        with_more["addedLater"] = 1.into();
        assert!(judge(with_more.to_string().as_bytes(), 1000.0).is_ok());
    }

    #[test]
    fn any_other_is_not() {
        check(|json| json["timestamp"] = Value::Null, "has no complete sample yet");
        check(|json| json["timestamp"] = 954.0.into(), "has no sample newer than 46 s");
        check(
            |json| json["watch"]["seconds"] = 29.0.into(),
            "has watched for 29 s only, a stall shows after 30 s",
        );
        check(|json| json["generator"]["name"] = "else".into(), "is another program");
        check(
            |json| json["schemaVersion"] = 2.into(),
            "speaks version 2 of the report, this program version 1",
        );
        check(|json| *json = Value::Null, "answers with something else");
        let mut broken = report();
        broken["hostname"] = Value::Null;
        let why = judge(broken.to_string().as_bytes(), 1000.0).unwrap_err();
        assert!(why.starts_with("says what is no report: "), "{why}");
        assert!(judge(b"<html>", 0.0).is_err());
    }
}
