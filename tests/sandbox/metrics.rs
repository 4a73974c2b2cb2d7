//! `GET /metrics` on the make-believe engine: before the first upgrade, after a good and a bad one.

use std::collections::BTreeMap;

use serde_json::json;

use crate::shop::{END, SOON, Shop};
use crate::support::{Daemon, wait_until};

/// Values by series, labels included.
fn measured(daemon: &Daemon) -> BTreeMap<String, f64> {
    let answer = daemon.get("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let kind = answer.header("content-type").expect("a type");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.to_owned(), value.parse().ok()?))
    };
    samples.map(|line| read(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect()
}

#[test]
fn a_monitoring_system_sees_how_upgrades_ended_and_that_a_person_is_waited_for() {
    let shop = Shop::open(json!({"1.9.7": {}, "9.0.1": {"health": [500], "takesPayments": false},
        "9.0.5": {"migration": {"schema": true, "rows": 10, "fails": true}}}));
    let daemon = shop.daemon();
    let before = measured(&daemon);
    let is = |series: &str, of: &BTreeMap<String, f64>| {
        of.get(&format!("payram_updater_{series}")).copied()
    };
    assert_eq!(is("job_state{state=\"IDLE\"}", &before), Some(1.0), "{before:?}");
    assert_eq!(is("application_up", &before), None, "no container is known yet");
    assert_eq!(is("last_downtime_seconds", &before), None);

    assert_eq!(shop.upgrade("1.9.7").0, Some(0));
    assert_eq!(shop.upgrade("9.0.1").0, Some(4));
    daemon.wait_settled(END);
    // An answer may be a second old.
    let after = wait_until("the way back is measured", SOON, || {
        Some(measured(&daemon)).filter(|it| is("job_phase{phase=\"ROLLED_BACK\"}", it) == Some(1.0))
    });
    let count = |kind: &str, status: &str| {
        is(&format!("events_total{{type=\"{kind}\",status=\"{status}\"}}"), &after)
    };
    assert_eq!(count("upgrade", "started"), Some(2.0), "{after:?}");
    assert_eq!(count("upgrade", "succeeded"), Some(1.0), "{after:?}");
    assert_eq!(count("upgrade", "rolled_back"), Some(1.0), "{after:?}");
    assert_eq!(is("job_state{state=\"FAILED\"}", &after), Some(1.0));
    assert_eq!(is("job_phase{phase=\"ROLLED_BACK\"}", &after), Some(1.0));
    assert_eq!(is("job_waits_for_operator", &after), Some(0.0));
    assert_eq!(is("application_up", &after), Some(1.0));
    assert_eq!(is("quarantined_versions", &after), Some(1.0));
    assert_eq!(is("last_good_version_info{version=\"1.9.7\"}", &after), Some(1.0), "{after:?}");
    assert!(is("last_downtime_seconds", &after).is_some_and(|seconds| seconds > 0.0), "{after:?}");
    assert_eq!(is("journal_broken", &after), Some(0.0));

    assert_eq!(shop.upgrade("9.0.5").0, Some(5));
    let stopped = wait_until("it waits for a person", SOON, || {
        Some(measured(&daemon)).filter(|it| is("job_waits_for_operator", it) == Some(1.0))
    });
    assert_eq!(is("job_active", &stopped), Some(0.0));
    assert_eq!(is("application_up", &stopped), Some(0.0));
}
