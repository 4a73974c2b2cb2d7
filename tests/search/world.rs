//! The small model of the world that the search runs the machine against: two containers, the
//! lone database server of an assessment, and three places where a database directory can lie.
//! Events that are nobody's step happen here: writes, exits, a reboot, a stranger's hand.

/// What the new version did to a database, at worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touch {
    Clean,
    /// Rows as workers write them, the schema as it was.
    Workers,
    Schema,
    Rows,
    Unreadable,
}

impl Touch {
    pub const WRITES: [Touch; 4] = [Touch::Workers, Touch::Schema, Touch::Rows, Touch::Unreadable];

    /// What both of them come to.
    pub fn and(self, other: Touch) -> Touch {
        match (self, other) {
            (Touch::Workers, Touch::Schema) | (Touch::Schema, Touch::Workers) => Touch::Rows,
            (one, other) => one.max(other),
        }
    }

    /// Whether the old version may go on with it.
    pub fn is_kept(self) -> bool {
        matches!(self, Touch::Clean | Touch::Workers)
    }
}

/// The application's programs in the old container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Programs {
    Stopped,
    /// The core answers, another does not run.
    Partial,
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The one that the merchant knows.
    Payram,
    /// `payram-previous-…` or `payram-next-…`.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    pub running: bool,
    pub name: Name,
    pub armed: bool,
    pub programs: Programs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    pub running: bool,
    pub was_started: bool,
    pub name: Name,
    pub armed: bool,
    /// Its programs that write were stopped.
    pub silenced: bool,
}

/// The lone server of an assessment; it mounts the database's directory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lone {
    Absent,
    Created,
    Running,
}

/// A database directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    pub touch: Touch,
    /// Copied while somebody wrote.
    pub torn: bool,
    /// Rows that the old version acknowledged are missing.
    pub behind: bool,
    /// The old version wrote since the fingerprint.
    pub ahead: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOfIt {
    pub directory: Directory,
    /// A manifest says that it is a restore point.
    pub sealed: bool,
}

/// What the server in the next container has mounted where the database is (I13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The shop's own directory.
    Own,
    /// A fresh cluster, as behind a volume of the new image.
    Fresh,
    /// The shop's cluster as it was some time ago.
    Older,
}

impl Served {
    pub const OTHERS: [Served; 2] = [Served::Fresh, Served::Older];
}

/// What the upgrade was about when a second server came to the database's directory while one of
/// the shop's ran on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The new version was at its gate, or what it did to the database was still to be told.
    Gate,
    /// The old version was on its way back, its database judged already.
    Return,
    /// The new version had its verdict, and its probation was still to end.
    Probation,
    /// All that was left was to tidy.
    Tidy,
}

/// Whose hand was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Intrusion {
    Nobodys,
    /// It took the parked old container alone.
    TookOld,
    Strangers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    pub old: Option<Old>,
    pub next: Option<Next>,
    pub lone: Lone,
    /// The lone server of an export; it mounts what was moved aside and nothing else.
    pub exporter: Lone,
    /// The file of the failed version's rows is there.
    pub exported: bool,
    /// Where a container that starts finds it; none in the middle of a restore.
    pub database: Option<Directory>,
    pub copy: Option<CopyOfIt>,
    /// What was moved aside.
    pub aside: Option<Touch>,
    /// The copy took the database's place.
    pub restored: bool,
    /// The old container has a supervisor.
    pub has_supervisor: bool,
    /// The worst that the new version ever wrote; nobody but the checks looks at it.
    pub wrote: Touch,
    /// A person consented to the loss of what the new version wrote; the same.
    pub consented: bool,
    /// Something was changed without a journaled intent; the same.
    pub unintended: bool,
    /// Who else had a hand in it; the same.
    pub intrusion: Intrusion,
    /// What the next container serves.
    pub served: Served,
    /// A server that a stranger started works in the database's directory.
    pub rival: bool,
    /// Two servers worked in it at the same time; nobody but the checks looks at it.
    pub damage: Option<Stage>,
    /// The journal names the second server.
    pub noted: bool,
    /// It does since a person last said how to go on.
    pub noted_since: bool,
    /// The old container's image and volumes are there.
    pub remakable: bool,
    /// It was made again.
    pub remade: bool,
    /// The files beside the database are as the new version left them.
    pub files_changed: bool,
}

/// How the engine comes back from a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reboot {
    /// What ran and is armed runs again (`unless-stopped`).
    WhatRan,
    /// What is armed runs, though it was stopped by hand before (`always`).
    WhatIsArmed,
}

/// What a stranger does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    RemovesOld,
    RemovesOldAndItsImage,
    RemovesNext,
    DeletesCopy,
    StartsServer,
}

impl Stranger {
    /// Those who take something away, before the version that is to serve has passed its gate.
    pub const TAKERS: [Stranger; 4] = [
        Stranger::RemovesOld,
        Stranger::RemovesOldAndItsImage,
        Stranger::RemovesNext,
        Stranger::DeletesCopy,
    ];
}

impl World {
    /// The old version serves, as the merchant left it.
    pub fn serving(has_supervisor: bool) -> Self {
        let programs = Programs::Running;
        World {
            old: Some(Old { running: true, name: Name::Payram, armed: true, programs }),
            next: None,
            lone: Lone::Absent,
            exporter: Lone::Absent,
            exported: false,
            database: Some(Directory {
                touch: Touch::Clean,
                torn: false,
                behind: false,
                ahead: true,
            }),
            copy: None,
            aside: None,
            restored: false,
            has_supervisor,
            wrote: Touch::Clean,
            consented: false,
            unintended: false,
            intrusion: Intrusion::Nobodys,
            served: Served::Own,
            rival: false,
            damage: None,
            noted: false,
            noted_since: false,
            remakable: true,
            remade: false,
            files_changed: false,
        }
    }

    pub fn old_runs(&self) -> bool {
        self.old.is_some_and(|old| old.running)
    }

    pub fn next_runs(&self) -> bool {
        self.next.is_some_and(|next| next.running)
    }

    /// How many of the shop's run that mount the database's directory.
    pub fn running(&self) -> usize {
        [self.old_runs(), self.next_runs(), self.lone == Lone::Running]
            .iter()
            .filter(|runs| **runs)
            .count()
    }

    /// The old version acknowledges a row: what was copied before does not have it.
    pub fn old_writes(mut self) -> Self {
        let serves = self.old.is_some_and(|old| old.running && old.programs != Programs::Stopped);
        if let (true, Some(database)) = (serves, self.database.as_mut()) {
            database.ahead = true;
            if let Some(copy) = self.copy.as_mut() {
                copy.directory.behind = true;
            }
        }
        self
    }

    /// The new version migrates or serves: it may write at any time while it runs.
    /// What it serves instead of the shop's is its own affair.
    pub fn next_writes(mut self, touch: Touch) -> Self {
        let writes = self.next.is_some_and(|next| next.running && !next.silenced)
            && self.served == Served::Own;
        if let (true, Some(database)) = (writes, self.database.as_mut()) {
            database.touch = database.touch.and(touch);
            self.wrote = self.wrote.max(database.touch);
        }
        self
    }

    /// `verify` starts a new version that was stopped with its engine, unless the old one runs.
    pub fn next_started_again(mut self) -> Option<Self> {
        let runs = self.old_runs() || self.lone == Lone::Running || self.rival || self.noted;
        let next = self.next.as_mut().filter(|next| next.was_started && !next.running && !runs)?;
        next.running = true;
        Some(self)
    }

    /// The same of the old version, on the way back.
    pub fn old_started_again(mut self) -> Option<Self> {
        let runs = self.next_runs() || self.lone == Lone::Running || self.rival || self.noted_since;
        let old = self.old.as_mut().filter(|old| !old.running && !runs)?;
        (old.running, old.programs) = (true, Programs::Running);
        Some(self)
    }

    /// The new version ends by itself; the engine starts it again where it is armed.
    pub fn next_exits(mut self) -> Self {
        if let Some(next) = self.next.as_mut().filter(|next| next.running) {
            next.running = next.armed;
            next.silenced &= !next.armed;
        }
        self
    }

    /// An operator stops the new container by hand.
    pub fn next_stopped_by_hand(mut self) -> Self {
        if let Some(next) = self.next.as_mut() {
            next.running = false;
            next.silenced = false;
        }
        self
    }

    /// The host, or the engine alone, goes down and comes back.
    pub fn reboot(mut self, how: Reboot) -> Self {
        let returns = |armed: bool, ran: bool, was_started: bool| match how {
            Reboot::WhatRan => armed && ran,
            Reboot::WhatIsArmed => armed && was_started,
        };
        if let Some(old) = self.old.as_mut() {
            old.running = returns(old.armed, old.running, true);
            old.programs = if old.running { Programs::Running } else { Programs::Stopped };
        }
        if let Some(next) = self.next.as_mut() {
            next.running = returns(next.armed, next.running, next.was_started);
            next.silenced = false;
        }
        for server in [&mut self.lone, &mut self.exporter] {
            if *server == Lone::Running {
                *server = Lone::Created;
            }
        }
        self
    }

    pub fn intrude(mut self, stranger: Stranger) -> Self {
        self.intrusion = Intrusion::Strangers;
        match stranger {
            Stranger::RemovesOld => {
                // A clean-up job takes what does not run.
                if self.old.is_some_and(|old| !old.running) {
                    self.intrusion = Intrusion::TookOld;
                }
                self.old = None;
            }
            Stranger::RemovesOldAndItsImage => (self.old, self.remakable) = (None, false),
            Stranger::RemovesNext => self.next = None,
            Stranger::DeletesCopy => self.copy = None,
            Stranger::StartsServer => self.rival = true,
        }
        self
    }

    /// Two servers that run at the same time have damaged the directory.
    pub fn overlapping(mut self, stage: Option<Stage>) -> Self {
        if self.rival && self.running() > 0 && self.damage.is_none() {
            self.damage = stage;
        }
        self
    }

    /// What the next container has where the database is turns out to be another one.
    pub fn covered(mut self, served: Served) -> Self {
        let is_new = self.next.is_some_and(|next| !next.was_started);
        if is_new && self.served == Served::Own {
            self.served = served;
        }
        self
    }

    /// A person was told why it stopped, and says how to go on.
    pub fn decided(mut self) -> Self {
        self.noted_since = false;
        if self.damage == Some(Stage::Return) {
            self.damage = None;
        }
        self
    }

    /// All of it in one number; two worlds are the same when theirs are.
    pub fn key(&self) -> u64 {
        let mut key = 0;
        let mut put = |value: u64, bits: u32| key = (key << bits) | value;
        match self.old {
            None => put(0, 6),
            Some(old) => {
                put(1, 1);
                put(u64::from(old.running), 1);
                put(old.name as u64, 1);
                put(u64::from(old.armed), 1);
                put(old.programs as u64, 2);
            }
        }
        match self.next {
            None => put(0, 6),
            Some(next) => {
                put(1, 1);
                put(u64::from(next.running), 1);
                put(u64::from(next.was_started), 1);
                put(next.name as u64, 1);
                put(u64::from(next.armed), 1);
                put(u64::from(next.silenced), 1);
            }
        }
        put(self.lone as u64, 2);
        put(self.exporter as u64, 2);
        put(u64::from(self.exported), 1);
        let of = |directory: Directory| {
            directory.touch as u64
                | u64::from(directory.torn) << 3
                | u64::from(directory.behind) << 4
                | u64::from(directory.ahead) << 5
        };
        put(self.database.map_or(0, |directory| 64 | of(directory)), 7);
        put(self.copy.map_or(0, |copy| 128 | u64::from(copy.sealed) << 6 | of(copy.directory)), 8);
        put(self.aside.map_or(0, |touch| 8 | touch as u64), 4);
        put(u64::from(self.restored), 1);
        put(u64::from(self.has_supervisor), 1);
        put(self.wrote as u64, 3);
        put(u64::from(self.consented), 1);
        put(u64::from(self.unintended), 1);
        put(self.intrusion as u64, 2);
        put(self.served as u64, 2);
        put(u64::from(self.rival), 1);
        put(self.damage.map_or(0, |stage| 1 + stage as u64), 3);
        put(u64::from(self.noted), 1);
        put(u64::from(self.noted_since), 1);
        put(u64::from(self.remakable), 1);
        put(u64::from(self.remade), 1);
        put(u64::from(self.files_changed), 1);
        key
    }

    /// What is different afterwards, a phrase for each thing.
    pub fn changes(&self, after: &World) -> Vec<String> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, before: String, after: String| {
            if before != after {
                changes.push(format!("{what}: {before} -> {after}"));
            }
        };
        compare("old", self.old_in_words(), after.old_in_words());
        compare("next", self.next_in_words(), after.next_in_words());
        compare("lone server", words(self.lone), words(after.lone));
        compare("server of the export", words(self.exporter), words(after.exporter));
        compare("file of its rows", words(self.exported), words(after.exported));
        let database = |world: &World| world.database.map_or("gone".into(), in_words);
        compare("database", database(self), database(after));
        let copy = |world: &World| match world.copy {
            None => "none".into(),
            Some(copy) if copy.sealed => format!("sealed, {}", in_words(copy.directory)),
            Some(copy) => format!("not sealed, {}", in_words(copy.directory)),
        };
        compare("copy", copy(self), copy(after));
        let aside = |world: &World| world.aside.map_or("nothing".into(), words);
        compare("kept aside", aside(self), aside(after));
        compare("files changed", words(self.files_changed), words(after.files_changed));
        compare("the new version serves", words(self.served), words(after.served));
        compare("a second server", words(self.rival), words(after.rival));
        compare("it is journaled", words(self.noted), words(after.noted));
        changes
    }

    fn old_in_words(&self) -> String {
        let Some(old) = self.old else { return "gone".into() };
        format!(
            "{}{}{}",
            if old.running {
                format!("runs, programs {}", words(old.programs))
            } else {
                "stopped".into()
            },
            if old.name == Name::Payram { "" } else { ", renamed" },
            if old.armed { "" } else { ", policy no" },
        )
    }

    fn next_in_words(&self) -> String {
        let Some(next) = self.next else { return "none".into() };
        format!(
            "{}{}{}{}",
            match (next.running, next.was_started) {
                (true, _) => "runs",
                (false, true) => "stopped",
                (false, false) => "created",
            },
            if next.silenced { ", silenced" } else { "" },
            if next.name == Name::Payram { ", has the name" } else { "" },
            if next.armed { ", armed" } else { "" },
        )
    }
}

fn words(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn in_words(directory: Directory) -> String {
    let mut said = match directory.touch {
        Touch::Clean => "untouched by the new version".to_owned(),
        Touch::Workers => "written to by the new version's workers".to_owned(),
        Touch::Schema => "schema changed".to_owned(),
        Touch::Rows => "rows changed".to_owned(),
        Touch::Unreadable => "unreadable".to_owned(),
    };
    for (holds, what) in [
        (directory.torn, ", torn"),
        (directory.behind, ", without rows that the old version acknowledged"),
        (directory.ahead, ", written to by the old version"),
    ] {
        if holds {
            said.push_str(what);
        }
    }
    said
}
