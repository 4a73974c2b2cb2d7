//! The places of one listener: how many connections, streams of events and long answers it has
//! at once, and who gives way. Called by [`super::listen`] and by the endpoints; knows no I/O.
//!
//! A connection on which nothing is asked gives way to a new one, the longest idle first, so
//! that clients that leak connections take nobody's place. A stream of events gives the place
//! of its connection back and takes one of the streams', which nobody else needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::Limits;

/// Who is there.
pub(super) struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
    /// Places of long answers.
    long_answers: Arc<Semaphore>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    streams: usize,
}

struct Connection {
    /// None while a request is answered.
    idle_since: Option<Instant>,
    leave: CancellationToken,
}

impl Places {
    pub fn new(limits: Limits) -> Arc<Self> {
        let long_answers = Arc::new(Semaphore::new(limits.long_answers));
        Arc::new(Self { limits, taken: Mutex::default(), long_answers })
    }

    /// A place for a connection; none when all are taken by some that are being answered.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.connections.len() >= self.limits.connections {
            let longest_idle = taken
                .connections
                .iter()
                .filter_map(|(id, connection)| Some((connection.idle_since?, *id)))
                .min()
                .filter(|(since, _)| since.elapsed() >= self.limits.idle);
            let (_, id) = longest_idle?;
            if let Some(gives_way) = taken.connections.remove(&id) {
                gives_way.leave.cancel();
            }
        }
        let id = taken.next;
        taken.next += 1;
        let leave = CancellationToken::new();
        let connection = Connection { idle_since: Some(Instant::now()), leave: leave.clone() };
        taken.connections.insert(id, connection);
        Some(Place { places: Arc::clone(self), id, leave })
    }

    /// Long answers that are being given.
    #[cfg(test)]
    pub fn long_answers(&self) -> usize {
        self.limits.long_answers - self.long_answers.available_permits()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    leave: CancellationToken,
}

impl Place {
    /// Cancelled when the connection has to give way.
    pub fn leave(&self) -> &CancellationToken {
        &self.leave
    }

    /// A request is answered now: until the answer is dropped this connection stays.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.set_idle_since(None);
        Busy(Arc::clone(self))
    }

    fn set_idle_since(&self, since: Option<Instant>) {
        if let Some(connection) = self.places.lock().connections.get_mut(&self.id) {
            connection.idle_since = since;
        }
    }

    /// Makes the connection a stream of events; none when there are too many of them.
    pub fn stream(&self) -> Option<Seat> {
        let mut taken = self.places.lock();
        if taken.streams >= self.places.limits.streams {
            return None;
        }
        taken.streams += 1;
        taken.connections.remove(&self.id);
        Some(Seat(Arc::clone(&self.places)))
    }

    /// Lets an answer have more than one page, once it is its turn; none when there are too
    /// many of them for too long.
    pub async fn long_answer(&self) -> Option<OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.places.long_answers).acquire_owned();
        tokio::time::timeout(self.places.limits.turn, turn).await.ok()?.ok()
    }

    #[cfg(test)]
    pub fn alone() -> Arc<Self> {
        Arc::new(Places::new(Limits::default()).enter().expect("the first place"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().connections.remove(&self.id);
    }
}

/// A request is answered while this is held.
pub(super) struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set_idle_since(Some(Instant::now()));
    }
}

/// The place of a stream of events; given back when it is dropped.
pub(super) struct Seat(Arc<Places>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.lock().streams -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(idle: Duration) -> Limits {
        Limits { connections: 2, streams: 1, long_answers: 1, idle, ..Limits::default() }
    }

    #[test]
    fn the_longest_idle_connection_gives_way_and_one_that_is_answered_does_not() {
        let places = Places::new(limits(Duration::ZERO));
        let first = Arc::new(places.enter().expect("a place"));
        let second = Arc::new(places.enter().expect("a place"));
        let busy = first.busy();
        let third = Arc::new(places.enter().expect("the second gives way"));
        assert!(second.leave().is_cancelled() && !first.leave().is_cancelled());
        let also_busy = third.busy();
        assert!(places.enter().is_none(), "both are being answered");
        drop(second);
        assert!(places.enter().is_none(), "it had given its place already");
        drop(busy);
        assert!(places.enter().is_some(), "the first has become idle");
        assert!(first.leave().is_cancelled());
        drop(also_busy);
    }

    #[test]
    fn a_connection_that_has_just_come_does_not_give_way() {
        let places = Places::new(limits(Duration::from_secs(3600)));
        let _both = [places.enter(), places.enter()];
        assert!(places.enter().is_none());
    }

    #[test]
    fn a_stream_of_events_takes_no_connections_place() {
        let places = Places::new(limits(Duration::from_secs(3600)));
        let leaked = places.enter().expect("a place");
        let seat = leaked.stream().expect("the first stream");
        let _both = [places.enter().expect("a place"), places.enter().expect("a place")];
        assert!(_both[0].stream().is_none(), "there is one already");
        drop(seat);
        assert!(_both[0].stream().is_some());
    }
}
