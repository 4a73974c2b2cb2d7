//! An upgrade of one hop on paper: its plan, and what each of its steps comes to where all is
//! well. For tests of the machine and of the journal, which look at no container.

use payram_updater::journal::{HopTarget, JobBody, Mode};
use payram_updater::machine::facts::{
    Assessment, Backup, Copy, CoreRules, Export, FilesRestored, NextContainer, OldContainer,
    Overlay, Probation, ProbationEnd, Programs, Proof, PulledImage, Quiesced, RestorePoint,
    Restored, RollbackDatabase, TargetImage, Verdict,
};
use payram_updater::machine::{Fact, Hop, Step};

/// The job of an upgrade from 1.9.6 to this version.
pub fn job_to(version: &str) -> JobBody {
    let hop = HopTarget {
        version: version.into(),
        target: target(version),
        rules: rules(),
        why: "the target".into(),
        overlay: None,
    };
    JobBody {
        mode: Mode::Manual,
        requested_target: version.into(),
        resolved_target: version.into(),
        source: None,
        from_version: Some("1.9.6".into()),
        container_name: "payram".into(),
        from_rules: rules(),
        overlay: Overlay::default(),
        dry_run: false,
        hops: vec![hop],
        afterwards: Vec::new(),
    }
}

/// Its hop.
pub fn hop_to(version: &str) -> Hop {
    Hop {
        old: OldContainer {
            id: "0123".into(),
            name: "payram".into(),
            image_id: "sha256:1".into(),
            restart_policy: serde_json::json!({"Name": "always"}),
            spec_file: "/spec.json".into(),
        },
        from: Some("1.9.6".into()),
        from_rules: rules(),
        version: version.into(),
        target: target(version),
        rules: rules(),
        rollback_database: RollbackDatabase::Lossless,
        probation_seconds: Some(900),
    }
}

fn target(version: &str) -> TargetImage {
    TargetImage { repo: "payramapp/payram".into(), tag: version.into() }
}

fn rules() -> CoreRules {
    CoreRules::Api { health_path: "/api/v1/health".into() }
}

/// What this step of it finds.
pub fn fact(step: Step, version: &str) -> Fact {
    match step {
        Step::BackUp => Fact::Backup(Backup {
            path: "/b.dump".into(),
            size_bytes: 1,
            sha256: "00".into(),
            database_host: "localhost".into(),
            database_port: 5432,
            database_name: "payram".into(),
        }),
        Step::ProveBackup => Fact::Proof(Proof { toc_entries: 1, tables: 1 }),
        Step::Pull => {
            Fact::Image(PulledImage { id: format!("sha256:id of {version}"), digest: None })
        }
        Step::CreateNext => {
            Fact::Next(NextContainer { id: "4567".into(), temporary_name: "payram-next".into() })
        }
        Step::PreCopy => Fact::Copy(Copy::Dump {
            path: "/r.dump".into(),
            reason: "the database is elsewhere".into(),
            is_elsewhere: true,
        }),
        Step::NotePrograms => Fact::Programs(programs()),
        Step::Quiesce => Fact::Quiesced(Box::new(Quiesced {
            programs: programs(),
            fingerprint: None,
            last_answer_ms: Some(1),
            last_answer_up: None,
            cluster: None,
            lock_file: None,
        })),
        Step::RestorePoint => Fact::RestorePoint(RestorePoint::of_database("00", 1, 1)),
        Step::Verify | Step::VerifyOld => Fact::Verdict(Verdict {
            version: version.into(),
            answers: 6,
            first_answer_ms: 2,
            first_answer_up: None,
            notes: Vec::new(),
            to_confirm: None,
            waits_for_a_person: false,
        }),
        Step::Probation => Fact::Probation(Probation {
            end: ProbationEnd::Passed,
            findings: Vec::new(),
            seconds: 900,
        }),
        Step::AssessDatabase | Step::AssessAgain => Fact::Assessment(Assessment::Unchanged.into()),
        Step::RestoreDatabase => Fact::Restored(Restored::kept_in("/failed")),
        Step::RestoreFiles => Fact::Files(FilesRestored::default()),
        Step::ExportRows => Fact::Export(Export::Nothing),
        Step::DisarmOld
        | Step::StopOld
        | Step::RenameOld
        | Step::RenameNext
        | Step::StartNext
        | Step::StartAgain
        | Step::ArmNext
        | Step::Tidy
        | Step::DisarmNext
        | Step::StopNext
        | Step::RestoreNextName
        | Step::RestoreOldName
        | Step::StartOld
        | Step::ResumePrograms
        | Step::RearmOld
        | Step::RemoveNext
        | Step::DiscardCopy => Fact::Done,
    }
}

fn programs() -> Programs {
    Programs { running: vec!["payram-core".into()], last_answer_ms: Some(1), habits: None }
}
