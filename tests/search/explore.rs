//! The search itself: breadth first over every pair of machine and world.
//!
//! A node is what a restart would find: the machine that the journal folds to, whether an
//! intent is journaled without an outcome, and the world. Faults are not counted against a
//! budget: any number of crashes, in any place, is searched, because what follows a crash
//! depends on nothing but the node that it left.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use payram_updater::machine::facts::{ProbationEnd, RollbackDatabase};
use payram_updater::machine::{Phase, Step};

use super::effects::{Answer, Found, Run, Sabotage, run};
use super::invariants::{Invariant, broken};
use super::machines::{Input, Machines};
use super::trace::Trace;
use super::world::{Intrusion, Lone, Reboot, Served, Stage, Stranger, Touch, World};

/// Honest steps after which a machine has come to rest; the longest way has fewer.
const STEPS_TO_REST: u32 = 64;

/// No such node.
const NONE: u32 = u32::MAX;

/// What led from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Start,
    /// The step ran to its end, without a fault of this world.
    Honest(Step, Answer),
    /// The step was refused, with this many changes made.
    Refused(Step, u8),
    /// No answer came, with this many changes made.
    Unanswered(Step, u8),
    /// The engine went down under the step and came back.
    EngineRestarted(Step, u8, Reboot),
    /// The program died, with this many changes made and no outcome journaled.
    Died(Step, u8),
    Left(Step, u8),
    Cancelled(Step, u8),
    /// A restart found an intent without an outcome.
    Resumed(Step),
    Rebooted(Reboot),
    OldWrote,
    NextWrote(Touch),
    NextExited,
    NextStoppedByHand,
    NextStartedByHand,
    Recovered,
    RecoveredRestoring,
    RecoveredRestoringShown,
    RecoveredCarrying,
    RecoveredKeeping,
    Intruded(Stranger),
    Covered(Served),
    StrangerStopped,
}

#[derive(Clone, Copy)]
pub struct Node {
    pub machine: u32,
    /// An intent is journaled without an outcome.
    pub is_pending: bool,
    pub world: World,
}

/// A promise that was broken, and how it came to that.
pub struct CounterExample {
    pub invariant: Invariant,
    pub trace: Trace,
}

/// What a search went through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    pub machines: usize,
    pub states: usize,
    pub transitions: usize,
    /// Ways from the start to rest with no more than this many faults and strange events.
    pub paths: [u128; 4],
    pub longest_way_to_rest: u32,
    pub needs_operator: usize,
    pub rolled_back: usize,
    pub verified: usize,
}

pub struct Search {
    pub machines: Machines,
    pub nodes: Vec<Node>,
    pub parents: Vec<(u32, Move)>,
    index: HashMap<u128, u32, BuildHasherDefault<Mix>>,
    /// For each node the end of its edges in `edges`.
    ends: Vec<u32>,
    edges: Vec<u32>,
    /// Where the node leads when nothing goes wrong; with consent from NeedsOperator.
    honest: Vec<u32>,
    sabotage: Sabotage,
    strangers: &'static [Stranger],
    others: bool,
    carries: bool,
}

impl Search {
    /// Of hops with a probation of this many seconds, or none as in journals of earlier versions.
    pub fn new(
        setting: RollbackDatabase,
        has_supervisor: bool,
        probation_seconds: Option<u64>,
    ) -> Self {
        let mut search = Search {
            machines: Machines::new(setting, has_supervisor, probation_seconds),
            nodes: Vec::new(),
            parents: Vec::new(),
            index: HashMap::default(),
            ends: Vec::new(),
            edges: Vec::new(),
            honest: Vec::new(),
            sabotage: Sabotage::Nothing,
            strangers: &[],
            others: false,
            carries: false,
        };
        let world = World::serving(has_supervisor);
        search.reach(Node { machine: 0, is_pending: false, world }, 0, Move::Start);
        search
    }

    /// With one thing done wrong.
    pub fn sabotaged(self, sabotage: Sabotage) -> Self {
        Self { sabotage, ..self }
    }

    /// With one of these strangers' hands in each path.
    pub fn with_strangers(self, strangers: &'static [Stranger]) -> Self {
        Self { strangers, ..self }
    }

    /// Where the new version changes files beside the database, of which there is a copy.
    pub fn with_files(mut self) -> Self {
        self.machines.has_files = true;
        self
    }

    /// Where a person may also have the rows that the new version inserted carried over.
    pub fn with_carrying(self) -> Self {
        Self { carries: true, ..self }
    }

    /// Where the new version may come to serve another database than the shop's.
    pub fn with_other_databases(self) -> Self {
        Self { others: true, ..self }
    }

    /// Reaches everything, or the first broken promise.
    pub fn run(mut self) -> Result<Extent, Box<CounterExample>> {
        let mut next = 0;
        while next < self.nodes.len() {
            self.expand(next as u32)?;
            self.ends.push(self.edges.len() as u32);
            next += 1;
        }
        let longest_way_to_rest = self.all_come_to_rest()?;
        self.all_that_can_go_back_do()?;
        let count = |phase| {
            self.nodes.iter().filter(|node| self.machines.view(node.machine).phase == phase).count()
        };
        Ok(Extent {
            machines: self.machines.len(),
            states: self.nodes.len(),
            transitions: self.edges.len(),
            paths: self.paths(),
            longest_way_to_rest,
            needs_operator: count(Phase::NeedsOperator),
            rolled_back: count(Phase::RolledBack),
            verified: count(Phase::Verified),
        })
    }

    fn expand(&mut self, from: u32) -> Result<(), Box<CounterExample>> {
        let node = self.nodes[from as usize];
        let view = self.machines.view(node.machine);
        let mut honest = NONE;
        match view.step {
            Some(step) if node.is_pending => {
                honest = self.lead(from, Input::Interrupted, node.world, Move::Resumed(step))?;
            }
            Some(step) => honest = self.attempt(from, step)?,
            None if view.phase == Phase::NeedsOperator => {
                let decided = node.world.decided();
                self.lead(from, Input::Recover, decided, Move::Recovered)?;
                let decided = World { consented: true, ..decided };
                let input = Input::RecoverRestoring;
                honest = self.lead(from, input, decided, Move::RecoveredRestoring)?;
                let shown = Input::RecoverRestoringShown;
                self.lead(from, shown, decided, Move::RecoveredRestoringShown)?;
                if self.carries {
                    let carrying = Input::RecoverCarrying;
                    self.lead(from, carrying, decided, Move::RecoveredCarrying)?;
                }
                if view.may_keep {
                    let decided = node.world.decided();
                    self.lead(from, Input::RecoverKeeping, decided, Move::RecoveredKeeping)?;
                }
                let world = node.world.next_stopped_by_hand();
                self.go(from, Node { world, ..node }, Move::NextStoppedByHand)?;
                // Of one that worked beside the new version it is told, or it was not seen by him.
                let beside_the_new = [Stage::Gate, Stage::Probation].map(Some);
                if !beside_the_new.contains(&node.world.damage) {
                    let world = World { rival: false, ..node.world };
                    self.go(from, Node { world, ..node }, Move::StrangerStopped)?;
                }
            }
            None if self.sabotage == Sabotage::TidyFollowsTrouble && view.keeps_the_way_back => {
                self.attempt(from, Step::Tidy)?;
            }
            None => {}
        }
        self.honest.push(honest);
        for how in [Reboot::WhatRan, Reboot::WhatIsArmed] {
            let world = node.world.reboot(how);
            self.go(from, Node { world, ..node }, Move::Rebooted(how))?;
        }
        self.go(from, Node { world: node.world.old_writes(), ..node }, Move::OldWrote)?;
        // A stranger's hand and another database multiply everything: there, one kind of write.
        let is_plain = self.strangers.is_empty() && !self.others;
        let touches = if is_plain { Touch::WRITES.as_slice() } else { &[Touch::Rows] };
        for touch in touches.iter().copied() {
            let world = node.world.next_writes(touch);
            self.go(from, Node { world, ..node }, Move::NextWrote(touch))?;
        }
        self.go(from, Node { world: node.world.next_exits(), ..node }, Move::NextExited)?;
        if node.world.intrusion == Intrusion::Nobodys {
            for stranger in self.strangers.iter().copied() {
                let may_be = match stranger {
                    // Once the old container is gone, what the new one meets is no upgrade's.
                    Stranger::StartsServer => view.stage.is_some() && node.world.old.is_some(),
                    Stranger::RemovesOld
                    | Stranger::RemovesOldAndItsImage
                    | Stranger::RemovesNext
                    | Stranger::DeletesCopy => view.is_gate_ahead,
                };
                if may_be {
                    let world = node.world.intrude(stranger);
                    self.go(from, Node { world, ..node }, Move::Intruded(stranger))?;
                }
            }
        }
        // A person who finds a new version down after its verdict may start it again by hand.
        if !self.strangers.is_empty() && view.phase == Phase::Verified && !node.world.next_runs() {
            let mut world = node.world;
            if let Some(next) = world.next.as_mut() {
                next.running = true;
            }
            self.go(from, Node { world, ..node }, Move::NextStartedByHand)?;
        }
        if self.others && view.phase == Phase::Pulled {
            for served in Served::OTHERS {
                let world = node.world.covered(served);
                self.go(from, Node { world, ..node }, Move::Covered(served))?;
            }
        }
        Ok(())
    }

    /// One attempt at the pending step, as the driver makes it, with everything that it can
    /// come to. Answers where it leads when nothing goes wrong.
    fn attempt(&mut self, from: u32, step: Step) -> Result<u32, Box<CounterExample>> {
        let Node { machine, world, .. } = self.nodes[from as usize];
        let view = self.machines.view(machine);
        let effect = run(step, view.known, world, self.sabotage);
        for (at, world) in effect.worlds.iter().enumerate() {
            if let Some((invariant, what)) = broken(view, world) {
                return Err(self.found(
                    invariant,
                    from,
                    (Move::Died(step, at as u8), *world),
                    what,
                ));
            }
        }
        if let Some((at, world)) = effect
            .worlds
            .iter()
            .enumerate()
            .find(|(_, after)| after.rival && after.running() > world.running())
        {
            let what = "it starts a server beside a stranger's".to_owned();
            let last = (Move::Died(step, at as u8), *world);
            return Err(self.found(Invariant::I2, from, last, what));
        }
        self.run_again(from, step, &effect)?;

        let input = Input::Answered(effect.answer);
        let mut honest =
            self.lead(from, input, effect.last(), Move::Honest(step, effect.answer))?;
        if step == Step::Probation {
            use ProbationEnd::{NextUpgrade, Passed, ToConfirm, Troubled};
            // What the world does not decide.
            let ends = match effect.answer {
                Answer::Probation(Passed) => [NextUpgrade, Troubled, ToConfirm].as_slice(),
                _ => &[Troubled],
            };
            for end in ends {
                let answer = Answer::Probation(*end);
                self.lead(from, Input::Answered(answer), world, Move::Honest(step, answer))?;
            }
        }
        // A database that was kept may be what makes the old version ill, or it is something else.
        if step == Step::VerifyOld && world.old_runs() && !world.rival && !world.noted_since {
            let ill = Answer::Unhealthy;
            self.lead(from, Input::Answered(ill), effect.last(), Move::Honest(step, ill))?;
        }
        if step == Step::Quiesce && effect.answer != Answer::Refused {
            let blind = Answer::Quiesced { has_fingerprint: false };
            self.lead(from, Input::Answered(blind), effect.last(), Move::Honest(step, blind))?;
        }
        // Where the failure is no verdict on it, a new version that serves is left alone.
        if step == Step::AssessDatabase
            && world.next.is_some_and(|next| next.running && !next.silenced)
            && !world.rival
            && !world.noted
            && !view.known.is_damaged
            && !view.known.is_mismatch
        {
            let serves = Answer::Assessment(Found::Serves);
            let world = World { lone: Lone::Absent, ..world };
            self.lead(from, Input::Answered(serves), world, Move::Honest(step, serves))?;
        }
        // What the engine stopped is started again before it is judged.
        let started_again = if step == Step::Verify {
            world.next_started_again()
        } else if step == Step::VerifyOld && self.sabotage != Sabotage::OldIsNotStarted {
            world.old_started_again()
        } else {
            None
        };
        if let Some(world) = started_again {
            self.go(from, Node { machine, is_pending: true, world }, Move::Died(step, 1))?;
            let then = run(step, view.known, world, self.sabotage);
            let (answer, world) = (then.answer, then.last());
            let input = Input::Answered(answer);
            honest = self.lead(from, input, world, Move::Honest(step, answer))?;
        }
        let may_be_cancelled =
            matches!(view.phase, Phase::Planned | Phase::BackedUp | Phase::Pulled | Phase::Swapped);
        for (at, world) in effect.worlds.iter().enumerate() {
            let (at_u8, world) = (at as u8, *world);
            self.go(from, Node { machine, is_pending: true, world }, Move::Died(step, at_u8))?;
            let refused = Input::Answered(Answer::Refused);
            self.lead(from, refused, world, Move::Refused(step, at_u8))?;
            self.lead(from, Input::Unknown, world, Move::Unanswered(step, at_u8))?;
            for how in [Reboot::WhatRan, Reboot::WhatIsArmed] {
                let restarted = Move::EngineRestarted(step, at_u8, how);
                self.lead(from, Input::Unknown, world.reboot(how), restarted)?;
            }
            if step.may_be_left() {
                self.lead(from, Input::Left, world, Move::Left(step, at_u8))?;
            }
            if may_be_cancelled && (at == 0 || step.may_be_left()) {
                self.lead(from, Input::Cancelled, world, Move::Cancelled(step, at_u8))?;
            }
        }
        Ok(honest)
    }

    /// I4: the step once more, after its end and from each point inside of it.
    fn run_again(
        &mut self,
        from: u32,
        step: Step,
        effect: &Run,
    ) -> Result<(), Box<CounterExample>> {
        if effect.answer.is_refusal() && effect.worlds.len() == 1 {
            return Ok(());
        }
        let known = self.machines.view(self.nodes[from as usize].machine).known;
        for (at, world) in effect.worlds.iter().enumerate() {
            let again = run(step, known, *world, self.sabotage);
            if again.last() != effect.last() || again.answer != effect.answer {
                let what = format!(
                    "run again from there it answers {:?} and not {:?}; {}",
                    again.answer,
                    effect.answer,
                    effect.last().changes(&again.last()).join("; ")
                );
                let last = (Move::Died(step, at as u8), *world);
                return Err(self.found(Invariant::I4, from, last, what));
            }
        }
        Ok(())
    }

    fn lead(
        &mut self,
        from: u32,
        input: Input,
        world: World,
        by: Move,
    ) -> Result<u32, Box<CounterExample>> {
        match self.machines.lead(self.nodes[from as usize].machine, input) {
            Ok(machine) => self.go(from, Node { machine, is_pending: false, world }, by),
            Err(what) => Err(self.found(Invariant::I3, from, (by, world), what)),
        }
    }

    fn go(&mut self, from: u32, to: Node, by: Move) -> Result<u32, Box<CounterExample>> {
        let stage = self.machines.view(to.machine).stage;
        let to = Node { world: to.world.overlapping(stage), ..to };
        let there = self.reach(to, from, by);
        if there == from {
            return Ok(there);
        }
        self.edges.push(there);
        if self.parents[there as usize] == (from, by) {
            let view = self.machines.view(to.machine);
            if let Some((invariant, what)) = broken(view, &to.world) {
                let trace = Trace::to(self, there, None, what);
                return Err(Box::new(CounterExample { invariant, trace }));
            }
        }
        Ok(there)
    }

    /// The number of this node, reached before or not.
    fn reach(&mut self, node: Node, from: u32, by: Move) -> u32 {
        // 56 bits of the world, one, and 32 of the machine.
        let key = u128::from(node.world.key()) << 33 | u128::from(node.is_pending) << 32;
        let next = self.nodes.len() as u32;
        let number = *self.index.entry(key | u128::from(node.machine)).or_insert(next);
        if number == next {
            self.nodes.push(node);
            self.parents.push((from, by));
        }
        number
    }

    /// Every node, nothing more going wrong, leads to rest; the longest such way.
    fn all_come_to_rest(&self) -> Result<u32, Box<CounterExample>> {
        let mut longest = 0;
        for start in 0..self.nodes.len() as u32 {
            match self.steps_to(start, |phase| phase.is_at_rest()) {
                Some((steps, _)) => longest = longest.max(steps),
                None => {
                    let what = format!("{STEPS_TO_REST} further steps don't end it");
                    let trace = Trace::to(self, start, None, what);
                    let invariant = Invariant::ComesToRest;
                    return Err(Box::new(CounterExample { invariant, trace }));
                }
            }
        }
        Ok(longest)
    }

    /// What goes back and meets no further fault is back, by itself or, out of NeedsOperator,
    /// by the word of a person who stops what still runs of the new version.
    fn all_that_can_go_back_do(&self) -> Result<(), Box<CounterExample>> {
        for start in 0..self.nodes.len() as u32 {
            let node = self.nodes[start as usize];
            let view = self.machines.view(node.machine);
            let is_as_left = node.world.database.is_some_and(|database| {
                let is_untouched = database.touch == Touch::Clean && !database.ahead;
                let stays = database.touch.is_kept() && view.setting != RollbackDatabase::Manual;
                (is_untouched || stays) && view.known.has_fingerprint
            });
            let is_asked = node.world.served == Served::Own || view.known.is_mismatch;
            let is_clear = (is_as_left && is_asked) || !view.is_to_be_assessed;
            // A container that somebody took is made again; any other hand may need a person.
            if node.world.intrusion > Intrusion::TookOld {
                continue;
            }
            let (invariant, first) = if view.phase == Phase::NeedsOperator {
                if node.world.next_runs() {
                    continue;
                }
                (Invariant::WayOut, self.honest(start))
            } else if view.goes_back && is_clear && !node.is_pending {
                (Invariant::ByItself, start)
            } else {
                continue;
            };
            let end = self.steps_to(first, |phase| phase.is_at_rest()).map(|(_, end)| end);
            let phase = |end: u32| self.machines.view(self.nodes[end as usize].machine).phase;
            if end.map(phase) != Some(Phase::RolledBack) {
                let after = Trace::honest(self, start, end.unwrap_or(first));
                let what = format!("without a further fault it does not end RolledBack:\n{after}");
                let trace = Trace::to(self, start, None, what);
                return Err(Box::new(CounterExample { invariant, trace }));
            }
        }
        Ok(())
    }

    /// Follows the way without faults until it is there; how far that is, and where.
    fn steps_to(&self, start: u32, is_there: impl Fn(Phase) -> bool) -> Option<(u32, u32)> {
        let mut at = start;
        for steps in 0..STEPS_TO_REST {
            let node = self.nodes[at as usize];
            if is_there(self.machines.view(node.machine).phase) {
                return Some((steps, at));
            }
            at = self.honest[at as usize];
        }
        None
    }

    /// Where the node leads when nothing goes wrong.
    pub fn honest(&self, node: u32) -> u32 {
        self.honest[node as usize]
    }

    /// Ways to rest with 0, 1, 2 and 3 faults or strange events: a fault-free way only gets
    /// nearer to rest, and every other edge uses up one, so that the counts have an end.
    fn paths(&self) -> [u128; 4] {
        let mut with = [0; 4];
        let mut counts: Vec<u128> = Vec::new();
        for (budget, total) in with.iter_mut().enumerate() {
            let before = std::mem::take(&mut counts);
            counts = vec![u128::MAX; self.nodes.len()];
            for start in 0..self.nodes.len() {
                self.count_from(start, budget > 0, &before, &mut counts);
            }
            *total = counts[0];
        }
        with
    }

    /// Fills in the counts along the fault-free way from here, the farthest first.
    fn count_from(&self, start: usize, may_fault: bool, before: &[u128], counts: &mut [u128]) {
        let mut way = Vec::new();
        let mut at = start;
        while counts[at] == u128::MAX {
            let node = self.nodes[at];
            let is_at_rest = self.machines.view(node.machine).phase.is_at_rest();
            way.push((at, is_at_rest));
            if is_at_rest {
                break;
            }
            at = self.honest[at] as usize;
        }
        for (at, is_at_rest) in way.into_iter().rev() {
            if is_at_rest {
                counts[at] = 1;
                continue;
            }
            let honest = self.honest[at] as usize;
            let begin = if at == 0 { 0 } else { self.ends[at - 1] as usize };
            let faults = &self.edges[begin..self.ends[at] as usize];
            let mut count = counts[honest];
            let mut is_honest_seen = false;
            for to in faults.iter().map(|to| *to as usize) {
                // The edge of the honest way is there once; a fault that leads to the same
                // place is another.
                if to == honest && !std::mem::replace(&mut is_honest_seen, true) {
                    continue;
                }
                if may_fault {
                    count += before[to];
                }
            }
            counts[at] = count;
        }
    }

    fn found(
        &self,
        invariant: Invariant,
        from: u32,
        last: (Move, World),
        what: String,
    ) -> Box<CounterExample> {
        Box::new(CounterExample { invariant, trace: Trace::to(self, from, Some(last), what) })
    }
}

/// Keys are dense already; multiplying spreads them.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64((value >> 64) as u64);
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 29;
    }
}
