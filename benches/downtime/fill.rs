//! Fills the database with payments, and counts at the end that none is missing.

use std::time::{Duration, Instant};

use crate::support::World;
use crate::{Failure, MB};

/// Rows of one statement, each of about 1.2 KB with its index.
const BATCH: u64 = 50_000;

/// A restart, and what a full table wants vacuumed, leaves the disk busy for a while.
const SETTLE: Duration = Duration::from_secs(4);

/// Adds payments until the database has this size; returns what it has then.
pub fn to_size(world: &World, size: u64) -> Result<u64, Failure> {
    let began = Instant::now();
    let mut bytes = bytes(world)?;
    let mut row_bytes = 1200;
    while bytes + 100_000 < size {
        let rows = ((size - bytes) / row_bytes).clamp(50, BATCH);
        // A kilobyte of hexadecimal digits that no compression of PostgreSQL or of a file system
        // makes smaller than half.
        world.sql(&format!(
            "INSERT INTO payments (id, amount, written_by)
             SELECT gen_random_uuid(), n * 0.01, 'bench ' || (
                 SELECT string_agg(encode(sha512((n::text || k || random())::bytea), 'hex'), '')
                 FROM generate_series(1, 8) k)
             FROM generate_series(1, {rows}) n"
        ));
        let now = self::bytes(world)?;
        row_bytes = ((now - bytes) / rows).max(100);
        bytes = now;
    }
    world.sql("VACUUM (ANALYZE) payments");
    world.sql("CHECKPOINT");
    let bytes = self::bytes(world)?;
    eprintln!(
        "{} MB: the database has {} MB, filled in {:.0} s",
        size / MB,
        bytes / MB,
        began.elapsed().as_secs_f64()
    );
    Ok(bytes)
}

fn bytes(world: &World) -> Result<u64, Failure> {
    Ok(world.sql("SELECT pg_database_size(current_database())").parse()?)
}

/// Before each swap, the same for both: what was written is on disk, and nothing else is under
/// way but the writer.
pub fn settle(world: &World) {
    world.sql("CHECKPOINT");
    let until = Instant::now() + SETTLE;
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// How many payments were acknowledged, and how many of these the database does not have.
pub fn lost(world: &World) -> (usize, usize) {
    let acked = world.acked();
    let mut there = 0;
    for ids in acked.chunks(1000) {
        let list: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        let found =
            world.sql(&format!("SELECT count(*) FROM payments WHERE id IN ({})", list.join(",")));
        there += found.parse::<usize>().unwrap_or_default();
    }
    (acked.len(), acked.len() - there)
}
