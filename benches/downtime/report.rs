//! What was measured, for a reader: medians, and the ratio of the two.

use std::time::Duration;

use crate::swap::{Bare, CUT_OVER, Upgrade};
use crate::{MB, Measured};

/// One line for each size.
pub fn table(results: &[Measured]) {
    println!();
    println!(
        "{:>9} | {:>7} {:>7} {:>8} {:>7} {:>9} | {:>12} {:>12} {:>7} | {:>6}",
        "database",
        "bare",
        "back",
        "upgrade",
        "ratio",
        "journaled",
        "before",
        "in downtime",
        "files",
        "lost"
    );
    for result in results {
        let bare = of(&result.bare, |bare| bare.downtime);
        let upgrade = of(&result.upgrades, |upgrade| upgrade.downtime);
        println!(
            "{:>6} MB | {:>7.3} {:>7.3} {:>8.3} {:>7.2} {:>9.3} | {:>9.1} MB {:>9.1} MB {:>7} | {:>6}",
            result.database_bytes / MB,
            bare.as_secs_f64(),
            of(&result.back, |bare| bare.downtime).as_secs_f64(),
            upgrade.as_secs_f64(),
            upgrade.as_secs_f64() / bare.as_secs_f64(),
            of(&result.upgrades, |upgrade| upgrade.journaled).as_secs_f64(),
            median(result.upgrades.iter().map(|upgrade| upgrade.bytes_before)) as f64 / MB as f64,
            median(result.upgrades.iter().map(|upgrade| upgrade.bytes_during)) as f64 / MB as f64,
            median(result.upgrades.iter().map(|upgrade| upgrade.files)),
            format!("{}/{}", result.lost, result.acked),
        );
    }
    println!(
        "\nbefore, in downtime: bytes written to the restore point; files: in it; lost: acknowledged payments that are missing, of all"
    );
}

/// Where the time of one size goes.
pub fn details(result: &Measured) {
    println!("\n{} MB, {} rounds:", result.size / MB, result.upgrades.len());
    let line = |what: &str, times: &[Duration]| {
        let each: Vec<String> =
            times.iter().map(|time| format!("{:.3}", time.as_secs_f64())).collect();
        println!(
            "  {what:<28} {:>8.3}   ({})",
            median(times.iter().copied()).as_secs_f64(),
            each.join(" ")
        );
    };
    let bare = |what: &str, part: fn(&Bare) -> Duration| {
        line(what, &result.bare.iter().map(part).collect::<Vec<_>>());
    };
    println!(" by hand");
    bare("docker stop", |bare| bare.stop);
    bare("  of which still serving", |bare| bare.still_serving);
    bare("docker rename, twice", |bare| bare.renames);
    bare("docker start", |bare| bare.start);
    bare("first answer after it", |bare| bare.boot);
    bare("downtime from outside", |bare| bare.downtime);
    let upgrade = |what: &str, part: &dyn Fn(&Upgrade) -> Duration| {
        line(what, &result.upgrades.iter().map(part).collect::<Vec<_>>());
    };
    println!(" by the daemon");
    for step in ["back_up", "pre_copy"] {
        upgrade(&format!("{step} (serving)"), &|upgrade| step_of(upgrade, step));
    }
    for step in CUT_OVER {
        upgrade(step, &|upgrade| step_of(upgrade, step));
        if step == "quiesce" {
            upgrade("  of which still serving", &|upgrade| upgrade.still_serving);
        }
    }
    upgrade("between these steps", &|upgrade| upgrade.between);
    upgrade("first answer after it", &|upgrade| upgrade.boot);
    upgrade("downtime from outside", &|upgrade| upgrade.downtime);
    upgrade("downtime as journaled", &|upgrade| upgrade.journaled);
    for said in result.upgrades.iter().flat_map(|upgrade| &upgrade.said) {
        println!("  said: {said}");
    }
}

fn step_of(upgrade: &Upgrade, step: &str) -> Duration {
    upgrade.steps.get(step).copied().unwrap_or_default()
}

fn of<T>(items: &[T], part: impl Fn(&T) -> Duration) -> Duration {
    median(items.iter().map(part))
}

/// The lower of the two in the middle of an even number.
fn median<T: Ord + Default>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort();
    let middle = values.len().saturating_sub(1) / 2;
    values.into_iter().nth(middle).unwrap_or_default()
}
