//! Connections that come and go faster than they can be looked up, beside some that stay.

use serde_json::json;

use crate::kit::actor::Actor;
use crate::kit::daemon::{Daemon, row_is};
use crate::kit::host;

#[test]
fn a_busy_host_keeps_its_stable_sockets_attributed() {
    let _host = host::shared();
    let (mut stable, mut busy) = (Actor::start(), Actor::start());
    stable.ask("pairs", json!({ "prefix": "a", "count": 250, "size": 100 }));
    busy.ask("churn", json!({ "rate": 2000 }));
    let daemon = Daemon::start();
    let mut last = 0.0;
    for sample in 0..6 {
        let (scrape, [held]) = daemon.settled([&mut stable]);
        assert_eq!(held.sockets, 501);
        row_is(&scrape, &stable, &held).unwrap_or_else(|complaint| panic!("sample {sample}: {complaint}"));
        assert_eq!(scrape.failures(), Vec::<String>::new(), "sample {sample}");
        assert!(scrape.timestamp() > last);
        last = scrape.timestamp();
    }
    let churned = busy.ask("churned", json!({})).as_i64().unwrap();
    println!("{churned} connections came and went");
    assert!(churned > 1000, "{churned}");
}
