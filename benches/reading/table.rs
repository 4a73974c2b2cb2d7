//! What was measured, for a reader, with the ratios.

use std::time::Duration;

use crate::load::Statuses;
use crate::memory::Memory;
use crate::shop::Upgrade;

pub fn latencies(loops: usize, alone: &Statuses, beside: &Statuses, inspects: &Statuses) {
    println!("\n  status, asked every 10 ms; ms");
    println!("  {:<28} {:>8} {:>8} {:>8} {:>8}", "", "answers", "p50", "p99", "longest");
    let line = |what: &str, times: &Statuses| {
        let ms = |of| times.within(of).as_secs_f64() * 1000.0;
        println!(
            "  {what:<28} {:>8} {:>8.2} {:>8.2} {:>8.2}",
            times.count(),
            ms(500),
            ms(990),
            ms(1000)
        );
    };
    line("alone", alone);
    line(&format!("beside {loops} loops of inspect"), beside);
    let ratio = |of| beside.within(of).as_secs_f64() / alone.within(of).as_secs_f64();
    println!(
        "  {:<28} {:>8} {:>8.2} {:>8.2} {:>8.2}",
        "ratio",
        "",
        ratio(500),
        ratio(990),
        ratio(1000)
    );
    line("inspect in those loops", inspects);
}

pub fn downtimes(loops: usize, quiet: &[Upgrade], loud: &[Upgrade]) {
    println!("\n  upgrade; seconds, medians (each)");
    println!("  {:<28} {:>8} {:>8}", "", "downtime", "job");
    let line = |what: &str, upgrades: &[Upgrade]| {
        let each: Vec<String> =
            upgrades.iter().map(|one| format!("{:.3}", one.downtime.as_secs_f64())).collect();
        println!(
            "  {what:<28} {:>8.3} {:>8.3}   ({})",
            of(upgrades, |one| one.downtime).as_secs_f64(),
            of(upgrades, |one| one.whole).as_secs_f64(),
            each.join(" ")
        );
    };
    line("alone", quiet);
    line(&format!("beside {loops} loops of inspect"), loud);
    let ratio = |part: fn(&Upgrade) -> Duration| {
        of(loud, part).as_secs_f64() / of(quiet, part).as_secs_f64()
    };
    println!(
        "  {:<28} {:>8.2} {:>8.2}",
        "ratio",
        ratio(|one| one.downtime),
        ratio(|one| one.whole)
    );
}

pub fn memory(clients: usize, memory: &Memory) {
    let mb = |bytes: u64| bytes as f64 / 1_000_000.0;
    println!("\n  resident memory, {clients} clients that ask for 10000 events; MB");
    println!("  {:<28} {:>8} {:>8} {:>8}", "", "most", "at last", "after");
    println!("  {:<28} {:>8.1}", "before", mb(memory.before));
    println!(
        "  {:<28} {:>8.1} {:>8.1} {:>8.1}",
        "do not read, stay 15 s",
        mb(memory.unread),
        mb(memory.unread_late),
        mb(memory.unread_after)
    );
    println!(
        "  {:<28} {:>8.1} {:>8} {:>8.1}   ({} got all, {} were told to ask again)",
        "read all",
        mb(memory.read),
        "",
        mb(memory.read_after),
        memory.whole,
        memory.refused
    );
}

fn of(upgrades: &[Upgrade], part: impl Fn(&Upgrade) -> Duration) -> Duration {
    let mut times: Vec<Duration> = upgrades.iter().map(part).collect();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
