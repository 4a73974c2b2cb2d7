//! The application's database: where it is, how large it is, its dump and the dump's proof,
//! and what it held before and after a failed version had it.
//!
//! Called by the driver's effects and by the backup commands. Everything goes through
//! PostgreSQL's own programs, run inside the container or on this host by a [`Runner`]; there
//! is no client of the wire protocol here. Nothing in this module changes the application's
//! database but [`rename_both`]: the readings are read-only sessions, and what [`prove_full`] and
//! [`load`] restore goes into a database of its own.
//!
//! | file | subject |
//! |---|---|
//! | `locate` | from the container's environment to a [`Database`] |
//! | `tool` | one run of a program: output, end, deadline |
//! | `runner` | which program, where, with which environment; a reading by `psql` |
//! | `dump` | `pg_dump` into a file that is complete or not there |
//! | `prove` | what the dump holds, read back by `pg_restore` |
//! | `scratch` | the dump restored beside the application's database and counted |
//! | `server` | where the server's directory is and how it was started |
//! | `cluster` | which cluster is served, and how far its log is |
//! | `usage` | whether a new version uses the database as the old one did; pure |
//! | `directory` | the directory that the server works in, and who else may |
//! | `host_servers` | the servers of this host, by the directory that they work in |
//! | `sidecar` | names of dumps, the JSON beside them, their checksums |
//! | `fingerprint` | the schema and the server's own counters at one moment |
//! | `assess` | two fingerprints compared; pure |
//! | `export` | the rows that a failed version wrote, as a file for the old one |
//! | `retention` | which dumps go |
//! | `backups` | which dumps there are, and whether one may be restored |
//! | `statements` | what a dump of statements (`.sql`) holds, read from the file |
//! | `restore` | a dump loaded into a database beside the application's, and both renamed |
//! | `remembered` | where the database was found last, for when the container is gone |

mod assess;
mod backups;
mod cluster;
mod collation;
mod directory;
mod dump;
mod export;
mod fingerprint;
mod host_servers;
mod locate;
mod may_serve;
mod peers;
mod prove;
mod remembered;
mod restore;
mod retention;
mod runner;
mod scratch;
mod sequences;
mod server;
mod sidecar;
mod statements;
mod tool;
mod usage;

pub use assess::assess;
pub use backups::{BackupFile, Checked, check, list, read_back, versions};
pub use cluster::{Control, Identity, difference, directory_difference, identity};
pub use collation::{OtherCollation, other_collation};
pub use directory::{
    Sharer, Workplace, is_reached_by, is_same_product, may_write_to, server_works_in, sharers,
};
pub use dump::{DumpFile, dump};
pub use export::{
    CutOver, Heading, Log, carry_rows, export_rows, said_of_carried, said_of_export,
    said_of_refused, said_of_table,
};
pub use fingerprint::{fingerprint, fingerprint_since};
pub use host_servers::{
    HostServer, Place, all as servers_of_this_host, in_place as servers_in, place_inside,
};
pub use locate::{Access, Database, locate};
pub use may_serve::is_server_program;
pub use prove::prove;
pub use remembered::{recall, remember};
pub use restore::{Renaming, count_now, drop_made, free_names, load, made_leftovers, rename_both};
pub use retention::{expendable, remove as remove_dump, retention};
pub use runner::{Runner, checkpoint, is_refusal, server_version, size};
pub use scratch::{FullProof, prove_full};
pub use sequences::{SequencesBehind, compare, move_sequences, sequences};
pub use server::{ServerFacts, server_facts};
pub use sidecar::{Sidecar, checksum, file_name, verify_file};
pub use usage::{UsageWatch, Use};
