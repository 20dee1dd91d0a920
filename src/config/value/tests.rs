use super::*;
use proptest::prelude::*;

const SHORT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(5);

/// What `text` is read as, or why not.
fn read(allowed: &Allowed, text: &str) -> Result<Value, String> {
    allowed.parse(&[text.to_owned()]).map_err(|refusals| refusals[0].why.clone())
}

#[track_caller]
fn refuses(allowed: &Allowed, text: &str, expect: &str) {
    let why = read(allowed, text).unwrap_err();
    assert!(why.contains(expect), "{text:?}: {why}");
    assert!(why.contains("use "), "{text:?}: {why}");
}

#[test]
fn durations() {
    #[track_caller]
    fn check(text: &str, millis: u64) {
        let all = Allowed::Duration(Duration::ZERO..=Duration::from_hours(24));
        assert_eq!(read(&all, text), Ok(Value::Duration(Duration::from_millis(millis))), "{text}");
    }
    check("15s", 15_000);
    check("1m30s", 90_000);
    check("1m 30s", 90_000);
    check(" 15s ", 15_000);
    check("500ms", 500);
    check("1.5s", 1_500);
    check("2min", 120_000);
    check("1h", 3_600_000);
    check("0s", 0);

    let short = Allowed::Duration(SHORT);
    assert!(read(&short, "1s").is_ok() && read(&short, "5m").is_ok());
    refuses(&short, "0s", "below the smallest allowed, 1s; use a duration from 1s to 5m");
    refuses(&short, "999ms", "below the smallest allowed, 1s");
    refuses(&short, "5m1ms", "above the largest allowed, 5m");
    refuses(&short, "5M", "above");
    refuses(&short, "15", "no unit: 15s, 15m or 15h?");
    refuses(&short, "1.5", "no unit");
    refuses(&short, "1m30", "without a unit");
    refuses(&short, "", "empty");
    refuses(&short, "  ", "empty");
    refuses(&short, "-5s", "negative");
    refuses(&short, "15 parsecs", "unknown unit \"parsecs\"");
    refuses(&short, "NaN", "not a duration");
    refuses(&short, "inf", "not a duration");
    refuses(&short, "1e3s", "unit");
    refuses(&short, "99999999999999999999s", "more digits");
    refuses(&short, "999999999y", "above");
    refuses(&short, "18446744073709551615s1000ms", "more digits");
    refuses(&short, "1 8446744073709551615 s 1000ms", "more digits");
    refuses(&short, &"1s".repeat(1000), "more digits");
}

#[test]
fn sizes() {
    #[track_caller]
    fn check(text: &str, bytes: u64) {
        assert_eq!(read(&Allowed::Size, text), Ok(Value::Size(bytes)), "{text}");
    }
    check("0", 0);
    check("1048576", 1 << 20);
    check("1MiB", 1 << 20);
    check("1 MiB", 1 << 20);
    check("1mib", 1 << 20);
    check("1Mi", 1 << 20);
    check("64k", 64_000);
    check("64KB", 64_000);
    check("64KiB", 65_536);
    check("1.5KiB", 1_536);
    check("0.1KiB", 102);
    check("100b", 100);
    check("9007199254740993B", 9_007_199_254_740_993);
    check("18446744073709551615", u64::MAX);
    check("15EiB", 15 << 60);

    refuses(&Allowed::Size, "16EiB", "too large");
    refuses(&Allowed::Size, "18446744073709551616", "too large");
    refuses(&Allowed::Size, &"9".repeat(40), "too large");
    refuses(&Allowed::Size, &"9".repeat(4000), "more digits");
    refuses(&Allowed::Size, "-1MiB", "negative");
    refuses(&Allowed::Size, "", "empty");
    refuses(&Allowed::Size, "MiB", "not a size");
    refuses(&Allowed::Size, "1.5", "whole number");
    refuses(&Allowed::Size, "1.MiB", "not a size");
    refuses(&Allowed::Size, "1.2.3k", "not a size");
    refuses(&Allowed::Size, "1 apple", "unknown unit \"apple\"");
    refuses(&Allowed::Size, "NaN", "not a size");
    refuses(&Allowed::Size, "+1k", "not a size");
}

#[test]
fn counts() {
    let allowed = Allowed::Count(1..=1000);
    assert_eq!(read(&allowed, "1"), Ok(Value::Count(1)));
    assert_eq!(read(&allowed, " 1000 "), Ok(Value::Count(1000)));
    refuses(&allowed, "0", "below the smallest allowed, 1; use a whole number from 1 to 1000");
    refuses(&allowed, "1001", "above the largest allowed, 1000");
    refuses(&allowed, &"9".repeat(100), "above");
    refuses(&allowed, "-1", "negative");
    refuses(&allowed, "1.5", "not a whole number");
    refuses(&allowed, "+1", "not a whole number");
    refuses(&allowed, "many", "not a whole number");
    refuses(&allowed, "-", "not a whole number");
    refuses(&allowed, "", "empty");
}

#[test]
fn routes() {
    for text in ["/metrics", "/a/b", "/-/metrics", "/api", "/x.y_z~1"] {
        assert_eq!(read(&Allowed::Route, text), Ok(Value::Route(text.to_owned())));
    }
    for text in ["/", "/-/healthy", "/-/ready", "/api/", "/api/v1/report"] {
        refuses(&Allowed::Route, text, "server's own");
    }
    refuses(&Allowed::Route, "metrics", "does not start with /");
    refuses(&Allowed::Route, "/metrics/", "segment");
    refuses(&Allowed::Route, "//metrics", "segment");
    refuses(&Allowed::Route, "/a/../b", "segment");
    refuses(&Allowed::Route, "/{id}", "holds '{'");
    refuses(&Allowed::Route, "/a b", "holds ' '");
    refuses(&Allowed::Route, "/a?b", "holds '?'");
    refuses(&Allowed::Route, "/%2e", "holds '%'");
    refuses(&Allowed::Route, "", "empty");
}

#[test]
fn paths_switches_and_words() {
    let path = |text: &str| Ok(Value::Path(PathBuf::from(text)));
    assert_eq!(read(&Allowed::Path, "web.yml"), path("web.yml"));
    assert_eq!(read(&Allowed::Path, "/a b "), path("/a b "));
    assert_eq!(read(&Allowed::AbsolutePath, "/proc"), path("/proc"));
    refuses(&Allowed::AbsolutePath, "proc", "relative");
    refuses(&Allowed::Path, "a\0b", "NUL");
    refuses(&Allowed::Path, "", "empty");

    assert_eq!(read(&Allowed::Switch, "true"), Ok(Value::Switch(true)));
    assert_eq!(read(&Allowed::Switch, "false"), Ok(Value::Switch(false)));
    refuses(&Allowed::Switch, "1", "neither true nor false");
    refuses(&Allowed::Switch, "", "empty");

    let words = Allowed::Choice(&["all", "own"]);
    assert_eq!(read(&words, "own"), Ok(Value::Choice("own")));
    refuses(&words, "none", "use all or own");
    refuses(&words, "Own", "use all or own");
}

#[test]
fn lists() {
    #[track_caller]
    fn check(texts: &[&str], expect: Result<usize, &[&str]>) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        match (Allowed::Addresses.parse(&texts), expect) {
            (Ok(Value::Addresses(addresses)), Ok(count)) => assert_eq!(addresses.len(), count),
            (Err(refusals), Err(expect)) => {
                assert_eq!(refusals.len(), expect.len(), "{texts:?}: {refusals:?}");
                for (refusal, expect) in refusals.iter().zip(expect) {
                    assert!(refusal.why.contains(expect), "{texts:?}: {refusals:?}");
                }
            }
            (got, _) => panic!("{texts:?}: {got:?}"),
        }
    }
    check(&[":1"], Ok(1));
    check(&[":1", " 127.0.0.1:2 "], Ok(2));
    check(&[], Err(&["empty list"]));
    check(&[":1", ""], Err(&["is empty"]));
    check(&[":1", ":1"], Err(&["twice"]));
    check(&["[::1]:1", "[0:0::1]:1"], Err(&["twice"]));
    check(&[":1", "127.0.0.1:1"], Err(&["together with :1"]));
    check(&["x", "y", ":1"], Err(&["no port", "no port"]));

    let twice = ["1s".to_owned(), "2s".to_owned()];
    let refusals = Allowed::Duration(SHORT).parse(&twice).unwrap_err();
    assert_eq!(
        (refusals[0].text.as_str(), refusals[0].why.as_str()),
        ("1s, 2s", "is set 2 times; set it once")
    );
}

fn kinds() -> Vec<Allowed> {
    vec![
        Allowed::Addresses,
        Allowed::Route,
        Allowed::Path,
        Allowed::AbsolutePath,
        Allowed::Switch,
        Allowed::Count(1..=1000),
        Allowed::Duration(SHORT),
        Allowed::Size,
        Allowed::Choice(&["all", "own"]),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        for kind in kinds() {
            let _ = kind.parse(std::slice::from_ref(&text));
        }
    }

    #[test]
    fn nothing_like_a_number_makes_it_panic(text in r"-?[0-9]{0,25}(\.[0-9]{0,25})? ?[a-zA-Zµ]{0,6}( ?[0-9]{0,25}[a-zµ]{0,3}){0,3}") {
        for kind in kinds() {
            let _ = kind.parse(std::slice::from_ref(&text));
        }
    }

    #[test]
    fn durations_are_read_back_as_written(seconds in 0..86_400_u64, millis in 0..1000_u64) {
        let duration = Duration::from_millis(seconds * 1000 + millis);
        let all = Allowed::Duration(Duration::ZERO..=Duration::MAX);
        prop_assert_eq!(read(&all, &duration_text(duration)), Ok(Value::Duration(duration)));
    }

    #[test]
    fn sizes_are_read_back_as_written(bytes in any::<u64>(), shift in 0..64_u32) {
        for bytes in [bytes, bytes >> shift, bytes >> shift << shift] {
            prop_assert_eq!(read(&Allowed::Size, &size_text(bytes)), Ok(Value::Size(bytes)));
        }
    }

    #[test]
    fn a_quoted_text_is_that_text_in_toml(text in any::<String>()) {
        use figment::providers::{Format, Toml};
        let toml = format!("x = {}", quoted(&text));
        prop_assert_eq!(toml.lines().count(), 1);
        let dict: figment::value::Dict = Toml::from_str(&toml).unwrap();
        prop_assert_eq!(dict["x"].as_str(), Some(text.as_str()));
    }
}
