//! Every bound that protects the daemon from whoever calls it, in one place. API.md names the
//! same numbers.

use std::time::Duration;

/// The bounds; tests choose smaller ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections that one listener serves at once, streams of events not counted.
    pub connections: usize,
    /// How long a connection must have asked for nothing before it gives way to a new one.
    pub idle: Duration,
    /// Streams of events that one listener serves at once.
    pub streams: usize,
    /// Answers of more than one page that one listener gives at once.
    pub long_answers: usize,
    /// How long another one waits for its turn.
    pub turn: Duration,
    /// Bytes of text in one page of an answer: what a client that does not read keeps in memory,
    /// beside as much in the connection's own buffer.
    pub page: usize,
    /// How long a client may take over its request's head, and over its body.
    pub request: Duration,
    /// How long a client may read nothing of what is sent to it.
    pub write: Duration,
    /// How long a long answer may take in all.
    pub answer: Duration,
    /// Peers that are told at once that they are refused.
    pub farewells: usize,
    /// How long such a peer has to hear it.
    pub farewell: Duration,
    /// Peers at once for which the engine is asked who they are.
    pub judged: usize,
    /// How old an `inspect` over TCP may be.
    pub inspect_age: Duration,
    /// Reads of the journal at once; one that may take long leaves the others their connections.
    pub reads: usize,
    /// Reads at once that may look through many rows.
    pub long_reads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let long_reads = 2;
        Self {
            connections: 64,
            idle: Duration::from_secs(1),
            streams: 32,
            long_answers: 16,
            turn: Duration::from_secs(5),
            page: 32 * 1024,
            request: Duration::from_secs(10),
            write: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            farewells: 64,
            farewell: Duration::from_secs(1),
            judged: 64,
            inspect_age: Duration::from_secs(1),
            reads: crate::journal::MOST_CONNECTIONS - long_reads,
            long_reads,
        }
    }
}
