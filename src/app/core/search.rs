//! Finds the place where a core answers: once and thoroughly ([`Probe::find`]), or again and again
//! until it does ([`Search`]).
//!
//! The gate looks ten times a second for minutes while a version migrates. Everything that a
//! container publishes asked at that pace would fill the logs of whatever else listens there, so
//! only the likeliest places are; all of them are asked at growing intervals.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::addresses::{self, Groups};
use super::fetch::fetch;
use super::{Place, Probe, Silent, is_welcome, listening};
use crate::engine::Engine;

/// Places that are asked at the same time.
const ASKED_AT_ONCE: usize = 64;

/// How much longer than one answer a search of one group takes at most, however many places
/// there are.
const SEARCH_BEYOND: Duration = Duration::from_secs(8);

/// Attempts that an error names.
const ATTEMPTS_SHOWN: usize = 8;

/// Between two searches of all places, at first; each pause is twice the one before.
const SEARCH_EVERY: Duration = Duration::from_secs(2);

/// Between two searches of all places, at most.
const SEARCH_EVERY_AT_MOST: Duration = Duration::from_secs(16);

/// Places that are asked at each look, at most.
const FRONT_AT_MOST: usize = 4;

impl Probe {
    /// Finds where the core answers: the place whose first page welcomes.
    ///
    /// `CORE_BASE_URL` wins and must welcome too: a proxy or a front end in the container may
    /// answer long before the core does, while it still migrates. Otherwise the published ports
    /// of `container`, a raw inspection, are asked, then its own addresses. Those of a group are
    /// asked at the same time, and the first in order is taken, whichever answered first.
    ///
    /// # Errors
    /// When there is nothing to ask or nothing answered as a core.
    pub async fn find(&self, engine: &dyn Engine, container: &Value) -> Result<Place, Silent> {
        search(self.clone(), self.groups(engine, container).await?).await
    }

    /// As [`Probe::find`], with all places asked at the same time: for an answer that somebody
    /// waits for, which takes no longer than the slowest place then.
    ///
    /// # Errors
    /// As [`Probe::find`].
    pub async fn find_at_once(
        &self,
        engine: &dyn Engine,
        container: &Value,
    ) -> Result<Place, Silent> {
        let places = self.groups(engine, container).await?.concat();
        search(self.clone(), vec![places]).await
    }

    async fn groups(&self, engine: &dyn Engine, container: &Value) -> Result<Groups, Silent> {
        if let Some(base) = &self.base {
            return Ok(vec![vec![Place { url: base.clone(), is_own: false }]]);
        }
        let port = self.database_port;
        let found = match addresses::shares_network_of(container) {
            None => addresses::of(container, container, port, listening_of(container).as_deref()),
            Some(other) => match engine.inspect_container(other).await {
                Ok(Some(other)) => {
                    addresses::of(container, &other, port, listening_of(container).as_deref())
                }
                Ok(None) => Err(format!(
                    "the container shares the network of container {}, which is gone",
                    short(other)
                )),
                Err(error) => Err(format!(
                    "the container shares the network of container {}, which can't be inspected: \
                     {error}",
                    short(other)
                )),
            },
        };
        found.map_err(|why| Silent::new(format!("there is nowhere to ask for the core: {why}")))
    }
}

/// Looks for one core again and again, as the gate does while a version starts. Dropping it ends
/// what is under way.
#[derive(Debug)]
pub struct Search {
    probe: Probe,
    /// Whose core it is; another container's is looked for from the beginning.
    container: String,
    /// Where it answered last.
    known: Option<Place>,
    /// What the last search of all places heard.
    heard: Option<Silent>,
    /// The search of all places that is under way; one at most.
    wide: JoinSet<Result<Place, Silent>>,
    next_wide: Instant,
    pause: Duration,
}

/// Whether a look waits for the search of all places.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Not,
    ForAll,
}

impl Search {
    /// Begins; nothing is asked yet.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            container: String::new(),
            known: None,
            heard: None,
            wide: JoinSet::new(),
            next_wide: Instant::now(),
            pause: SEARCH_EVERY,
        }
    }

    /// Looks once: at where it answered before and at the likeliest places, and now and then
    /// everywhere, which goes on between two looks. The place that answers first is taken.
    ///
    /// # Errors
    /// When nothing answers as a core now; with what all places said, as far as they were asked.
    pub async fn look(&mut self, engine: &dyn Engine, container: &Value) -> Result<Place, Silent> {
        self.look_and(Wait::Not, engine, container).await
    }

    /// The same, and a search of all places that is under way is waited for.
    ///
    /// # Errors
    /// As [`Search::look`].
    pub async fn look_until_heard(
        &mut self,
        engine: &dyn Engine,
        container: &Value,
    ) -> Result<Place, Silent> {
        self.look_and(Wait::ForAll, engine, container).await
    }

    async fn look_and(
        &mut self,
        wait: Wait,
        engine: &dyn Engine,
        container: &Value,
    ) -> Result<Place, Silent> {
        let groups = self.probe.groups(engine, container).await?;
        let id = container["Id"].as_str().unwrap_or_default();
        if self.container != id {
            *self = Self { container: id.to_owned(), ..Self::new(self.probe.clone()) };
        }
        let front = self.front(&groups);
        let is_all = groups.iter().flatten().all(|place| front.contains(place));
        if self.wide.is_empty() && !is_all && Instant::now() >= self.next_wide {
            self.wide.spawn(search(self.probe.clone(), groups));
        }
        let front = search(self.probe.clone(), vec![front]);
        tokio::pin!(front);
        let mut missed = None;
        let found = loop {
            if let Some(silent) = missed.take_if(|_| wait == Wait::Not || self.wide.is_empty()) {
                break Err(silent);
            }
            tokio::select! {
                found = &mut front, if missed.is_none() => match found {
                    Ok(place) => break Ok(place),
                    Err(silent) => missed = Some(silent),
                },
                Some(ended) = self.wide.join_next() => {
                    self.next_wide = Instant::now() + self.pause;
                    self.pause = (self.pause * 2).min(SEARCH_EVERY_AT_MOST);
                    match ended {
                        Ok(Ok(place)) => break Ok(place),
                        Ok(Err(silent)) => self.heard = Some(silent),
                        // It panicked or was aborted: asked again after the pause.
                        Err(error) => self.heard = Some(Silent::new(error.to_string())),
                    }
                }
            }
        };
        match found {
            Ok(place) => {
                self.known = Some(place.clone());
                self.pause = SEARCH_EVERY;
                Ok(place)
            }
            Err(silent) => Err(self.heard.clone().unwrap_or(silent)),
        }
    }

    /// What is asked at each look: where it answered before, where a web server answered that
    /// nobody is behind it yet, and the likeliest place of each group.
    fn front(&self, groups: &Groups) -> Vec<Place> {
        let fronts = self.heard.iter().flat_map(|silent| &silent.fronts);
        let likeliest = groups.iter().filter_map(|group| group.first());
        let mut front: Vec<Place> = Vec::new();
        for place in self.known.iter().chain(fronts).chain(likeliest) {
            // The container may have got another address meanwhile.
            let is_there = groups.iter().any(|group| group.contains(place));
            if is_there && !front.contains(place) && front.len() < FRONT_AT_MOST {
                front.push(place.clone());
            }
        }
        front
    }
}

/// Where a container listens, for one that shares its addresses with others.
fn listening_of(container: &Value) -> Option<Vec<u16>> {
    let mode = container.pointer("/HostConfig/NetworkMode").and_then(Value::as_str);
    let is_shared = mode.is_some_and(|mode| mode == "host" || mode.starts_with("container:"));
    is_shared.then(|| listening::ports(container)).flatten()
}

/// The first place that answers as a core; a group is asked when there was none in those before.
pub(super) async fn search(probe: Probe, groups: Groups) -> Result<Place, Silent> {
    let within = probe.within;
    let mut attempts = Vec::new();
    let mut fronts = Vec::new();
    let mut is_cut_short = false;
    for group in groups {
        let asked = async {
            let answers =
                futures_util::stream::iter(group).map(move |place| welcomes(place, within));
            let mut answers = answers.buffered(ASKED_AT_ONCE);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(place) => return Some(place),
                    Err(attempt) => {
                        fronts.extend(attempt.front);
                        attempts.push(attempt.sentence);
                    }
                }
            }
            None
        };
        match tokio::time::timeout(within + SEARCH_BEYOND, asked).await {
            Ok(Some(place)) => return Ok(place),
            Ok(None) => {}
            Err(_elapsed) => is_cut_short = true,
        }
    }
    let more = attempts.len().saturating_sub(ATTEMPTS_SHOWN);
    attempts.truncate(ATTEMPTS_SHOWN);
    let at = if probe.base.is_some() { " at CORE_BASE_URL" } else { "" };
    let mut sentence = format!("no PayRam core answers{at}: {}", attempts.join("; "));
    if more > 0 {
        sentence.push_str(&format!("; and {more} more"));
    }
    if is_cut_short {
        let limit = (within + SEARCH_BEYOND).as_secs();
        sentence.push_str(&format!("; the rest not within {limit} s"));
    }
    Err(Silent { sentence, fronts })
}

/// A place that did not answer as a core.
struct Attempt {
    sentence: String,
    /// The place, when a web server answered there that the one behind it does not.
    front: Option<Place>,
}

/// The place when a core answers there, else what was found.
async fn welcomes(place: Place, within: Duration) -> Result<Place, Attempt> {
    match fetch(&place, within).await {
        Ok(answer) if is_welcome(&answer) => Ok(place),
        Ok(answer) => Err(Attempt {
            sentence: format!("{place} {answer}"),
            front: (answer.status >= 500).then_some(place),
        }),
        Err(reason) => Err(Attempt { sentence: format!("{place}: {reason}"), front: None }),
    }
}

/// A container's id, or name, as it is shown.
fn short(id_or_name: &str) -> String {
    id_or_name.chars().take(12).collect()
}
