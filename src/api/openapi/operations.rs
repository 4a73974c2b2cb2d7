//! Every endpoint in a table: who may ask it, with what, and what it answers. Data alone;
//! [`super`] makes the document of it.

use crate::api::routes::Endpoint;
use crate::history::{STATUSES, TYPES};

/// An endpoint.
pub(super) struct Operation {
    pub endpoint: Endpoint,
    /// What a generated client calls it.
    pub name: &'static str,
    pub summary: &'static str,
    pub audience: Audience,
    pub parameters: &'static [Parameter],
    /// The shape of its body.
    pub body: Option<&'static str>,
    /// But for what is refused, which is the same everywhere.
    pub answers: &'static [Answer],
}

/// Who is answered.
pub(super) enum Audience {
    /// Whoever access control lets through.
    Anyone,
    /// Root, over the Unix socket.
    Operator,
}

/// Something beside the path and the body.
pub(super) struct Parameter {
    pub name: &'static str,
    pub place: Place,
    /// JSON Schema's word for it.
    pub kind: &'static str,
    pub limits: Limits,
    pub about: &'static str,
}

/// Where it stands.
pub(super) enum Place {
    Query,
    Header,
}

/// What it may be.
pub(super) enum Limits {
    None,
    /// A whole number from here on.
    From(u32),
    /// The number of a row from here on.
    Row(u32),
    /// RFC 3339.
    Moment,
    Words(&'static [&'static str]),
    /// The id of a job.
    Job,
}

/// An answer: its status, and its content by type, with the name of its shape.
pub(super) struct Answer {
    pub status: &'static str,
    pub about: &'static str,
    pub content: &'static [(&'static str, Option<&'static str>)],
}

/// The shape of a body in which nothing is asked further.
const NOTHING: &str = "Empty";

const JSON: &str = "application/json";

/// What every endpoint answers where it refuses.
pub(super) const REFUSED: Answer = Answer {
    status: "default",
    about: "Refused, or it could not be answered: why, and a code.",
    content: &[(JSON, Some("Error"))],
};

const fn query(
    name: &'static str,
    kind: &'static str,
    limits: Limits,
    about: &'static str,
) -> Parameter {
    Parameter { name, place: Place::Query, kind, limits, about }
}

const AFTER: Parameter = query("after", "integer", Limits::Row(0), "Only lines after this row.");
const LAST: Parameter = query("last", "integer", Limits::From(0), "Only so many lines, the last.");
const FORMAT: Parameter =
    query("format", "string", Limits::Words(&["text", "json"]), "Text, or lines with their rows.");
const SINCE: Parameter = query("since", "string", Limits::Moment, "Only from this moment on.");
const BEFORE: Parameter = query("before", "string", Limits::Moment, "Only before this moment.");
const LIMIT: Parameter = query("limit", "integer", Limits::From(1), "At most so many.");
const CURSOR_ROW: Parameter =
    query("cursor", "integer", Limits::Row(1), "The nextCursor of an answer: goes on after it.");
const CURSOR_JOB: Parameter =
    query("cursor", "string", Limits::Job, "The nextCursor of an answer: goes on after it.");
const TYPE: Parameter = query("type", "string", Limits::Words(&TYPES), "Only of this type.");
const STATUS: Parameter =
    query("status", "string", Limits::Words(&STATUSES), "Only of this status.");
const LAST_EVENT: Parameter = Parameter {
    name: "Last-Event-ID",
    place: Place::Header,
    kind: "integer",
    limits: Limits::Row(0),
    about: "The id of the last line that was heard: goes on after it.",
};
const KNOWN: Parameter = Parameter {
    name: "If-None-Match",
    place: Place::Header,
    kind: "string",
    limits: Limits::None,
    about: "The ETag of the answer that is known.",
};

const LOG_PARAMETERS: &[Parameter] = &[AFTER, LAST, FORMAT, SINCE];
const HISTORY_PARAMETERS: &[Parameter] = &[TYPE, STATUS, LIMIT, SINCE, BEFORE, CURSOR_ROW];

const LOG: &[Answer] = &[Answer {
    status: "200",
    about: "The lines, oldest first.",
    content: &[("text/plain", None), (JSON, Some("LogLines"))],
}];

const HISTORY: &[Answer] = &[ok("The events, newest first.", &[(JSON, Some("History"))])];

const fn ok(
    about: &'static str,
    content: &'static [(&'static str, Option<&'static str>)],
) -> Answer {
    Answer { status: "200", about, content }
}

/// What only reads.
const fn reads(
    endpoint: Endpoint,
    name: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    answers: &'static [Answer],
) -> Operation {
    Operation {
        endpoint,
        name,
        summary,
        audience: Audience::Anyone,
        parameters,
        body: None,
        answers,
    }
}

/// What is asked with a body.
const fn asks(
    endpoint: Endpoint,
    name: &'static str,
    summary: &'static str,
    audience: Audience,
    body: &'static str,
    answers: &'static [Answer],
) -> Operation {
    Operation { endpoint, name, summary, audience, parameters: &[], body: Some(body), answers }
}

/// All of them, in the order of the routes.
pub(super) const OPERATIONS: &[Operation] = &[
    reads(
        Endpoint::Health,
        "health",
        "The daemon answers.",
        &[],
        &[ok("It does.", &[(JSON, Some("Health"))])],
    ),
    reads(
        Endpoint::Status,
        "status",
        "The job that runs, or ran last.",
        &[],
        &[ok("The job; IDLE when there never was one.", &[(JSON, Some("Job"))])],
    ),
    reads(
        Endpoint::Last,
        "last",
        "The last job, without playbook.",
        &[],
        &[ok("The job, or a message when there never was one.", &[(JSON, Some("LastJob"))])],
    ),
    reads(Endpoint::Logs, "logs", "The log of the last job.", LOG_PARAMETERS, LOG),
    reads(
        Endpoint::Playbook,
        "playbook",
        "What to do about its failure.",
        &[],
        &[ok("The playbook; null when nothing failed.", &[(JSON, Some("PlaybookAnswer"))])],
    ),
    reads(
        Endpoint::Inspect,
        "inspect",
        "What state the shop is in, and what to do.",
        &[],
        &[ok("The verdict, whatever it is.", &[(JSON, Some("Inspection"))])],
    ),
    reads(
        Endpoint::Events,
        "events",
        "Server-sent events: state, log, progress.",
        &[LAST_EVENT],
        &[ok("A stream that does not end by itself.", &[("text/event-stream", None)])],
    ),
    reads(Endpoint::History, "history", "What happened.", HISTORY_PARAMETERS, HISTORY),
    reads(
        Endpoint::Jobs,
        "jobs",
        "Every job, the newest first.",
        &[LIMIT, CURSOR_JOB],
        &[ok("The jobs.", &[(JSON, Some("Jobs"))])],
    ),
    reads(Endpoint::Job, "job", "One job.", &[], &[ok("The job.", &[(JSON, Some("Job"))])]),
    reads(Endpoint::JobLogs, "jobLogs", "The log of one job.", LOG_PARAMETERS, LOG),
    reads(
        Endpoint::JobEvents,
        "jobEvents",
        "What happened in one job.",
        HISTORY_PARAMETERS,
        HISTORY,
    ),
    reads(
        Endpoint::Versions,
        "versions",
        "Which versions can be installed from here.",
        &[KNOWN],
        &[
            ok("The versions, the newest first.", &[(JSON, Some("Versions"))]),
            Answer { status: "304", about: "It is as it was.", content: &[] },
        ],
    ),
    reads(
        Endpoint::FailureCodes,
        "failureCodes",
        "Every code of a failure.",
        &[],
        &[ok("The codes.", &[(JSON, Some("FailureCodes"))])],
    ),
    reads(
        Endpoint::Metrics,
        "metrics",
        "For a monitoring system.",
        &[],
        &[ok("Prometheus's text format.", &[("text/plain", None)])],
    ),
    reads(
        Endpoint::OpenApi,
        "openapi",
        "This document.",
        &[],
        &[ok("OpenAPI 3.1.", &[(JSON, Some("Empty"))])],
    ),
    asks(
        Endpoint::Plan,
        "plan",
        "What an upgrade would do. Changes nothing.",
        Audience::Anyone,
        "PlanRequest",
        &[ok("The plan, also where it refuses.", &[(JSON, Some("Plan"))])],
    ),
    asks(
        Endpoint::Run,
        "run",
        "Begins an upgrade, and answers at once.",
        Audience::Anyone,
        "RunRequest",
        &[
            ok("The job; none where the plan refuses.", &[(JSON, Some("RunAnswer"))]),
            Answer {
                status: "409",
                about: "Another job is under way.",
                content: &[(JSON, Some("Error"))],
            },
        ],
    ),
    asks(
        Endpoint::Rehearse,
        "rehearse",
        "Tries a version on a copy of the shop's data, and answers at once.",
        Audience::Anyone,
        "PlanRequest",
        &[
            ok("The job; none where the plan refuses.", &[(JSON, Some("RehearseAnswer"))]),
            Answer {
                status: "409",
                about: "Another job is under way.",
                content: &[(JSON, Some("Error"))],
            },
            Answer {
                status: "429",
                about: "This image was tried less than an hour ago.",
                content: &[(JSON, Some("Error"))],
            },
        ],
    ),
    asks(
        Endpoint::Cancel,
        "cancel",
        "Cancels the job that is under way.",
        Audience::Operator,
        "CancelRequest",
        &[Answer { status: "202", about: "It goes back.", content: &[(JSON, Some("Cancelled"))] }],
    ),
    asks(
        Endpoint::Recover,
        "recover",
        "Does the safe thing about the last job, or says what that is.",
        Audience::Operator,
        "RecoverRequest",
        &[ok("What is done, or why not.", &[(JSON, Some("Decision"))])],
    ),
    asks(
        Endpoint::Sync,
        "sync",
        "Records what runs now as good.",
        Audience::Operator,
        NOTHING,
        &[ok("What is recorded, or why not.", &[(JSON, Some("Decision"))])],
    ),
    asks(
        Endpoint::Cleanup,
        "cleanup",
        "Removes what nobody needs any more.",
        Audience::Operator,
        "CleanupRequest",
        &[ok("What is gone.", &[(JSON, Some("Cleaned"))])],
    ),
    reads(
        Endpoint::Backups,
        "backups",
        "The backups there are, newest first.",
        &[],
        &[ok("The backups.", &[(JSON, Some("Backups"))])],
    ),
    asks(
        Endpoint::BackupCreate,
        "backupCreate",
        "Makes a backup; answers when it is proved.",
        Audience::Operator,
        NOTHING,
        &[ok("The backup.", &[(JSON, Some("BackupMade"))])],
    ),
    asks(
        Endpoint::BackupRestore,
        "backupRestore",
        "Puts a backup back, or says what that would do.",
        Audience::Operator,
        "RestoreRequest",
        &[
            ok("What would be done.", &[(JSON, Some("RestoreAnswer"))]),
            Answer {
                status: "202",
                about: "It has begun, as the active job.",
                content: &[(JSON, Some("RestoreAnswer"))],
            },
        ],
    ),
];
