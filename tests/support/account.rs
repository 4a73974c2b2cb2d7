//! A line for each fault: what was done where, how it ended, how long that took, and the
//! payments. What a whole run prints is the table of all faults.

use std::time::Instant;

use serde_json::Value;

use super::World;

/// One fault, from its beginning.
pub struct Account {
    fault: String,
    at: String,
    began: Instant,
}

impl Account {
    /// Begins with the fault.
    pub fn of(fault: impl Into<String>, at: impl Into<String>) -> Account {
        Account { fault: fault.into(), at: at.into(), began: Instant::now() }
    }

    /// What it is about, for assertions.
    pub fn name(&self) -> String {
        format!("{} at {}", self.fault, self.at)
    }

    /// Prints the line. Every acknowledged payment must be in the database.
    pub fn close(&self, world: &World, status: &Value, what: &str) {
        let seconds = self.began.elapsed().as_secs_f32();
        let acked = world.acked();
        let there = world.payments();
        let present = acked.iter().filter(|id| there.contains(*id)).count();
        let code = status["failureCode"].as_str().unwrap_or_default();
        println!(
            "| {} | {} | {what} | {} {code} | {seconds:.1} s | {} | {present} | {} |",
            self.fault,
            self.at,
            status["phase"].as_str().unwrap_or_default(),
            acked.len(),
            acked.len() - present,
        );
        assert_eq!(acked.len(), present, "{}: acknowledged and lost", self.name());
    }
}
