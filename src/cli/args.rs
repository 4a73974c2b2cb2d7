//! The command line, from which help, completions and the manual page come.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clock::Timestamp;
use crate::journal::Mode;

/// What every exit code means, at the foot of the help.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed or refused
  2  usage, or a confirmation was needed and there was no terminal to ask on
  3  the daemon can't be reached
  4  rolled back: the application serves the old version
  5  needs an operator
  130, 141  the watching ended (Ctrl-C, output closed); the upgrade goes on";

const RUN_NOTES: &str = "\
Ctrl-C only ends the watching (exit 130): the daemon goes on with the upgrade.
Watch it again: payram-updater watch. Cancel it: payram-updater cancel";

const REHEARSE_NOTES: &str = "\
The database is rebuilt from a dump in REHEARSAL_DIR, and the new version is
started on it in a container without a network, then the present one on what
it made of the data. All of it is removed afterwards. Exit 0: it serves, or it
can't be said. Exit 1: it does not serve, or it was not tried. An upgrade, a
restore and a recovery end a rehearsal. So does: payram-updater cancel";

const RESTORE_NOTES: &str = "\
The backup is loaded into a new database beside the present one and compared;
then both change places in one transaction. A restore that fails or is killed
changes nothing. Exit 4: PayRam was not well on the backup's data, and has the
data from before again. Ctrl-C only ends the watching (exit 130). Before
anything is stopped it can be cancelled: payram-updater cancel";

const DEMO_NOTES: &str = "\
Exit 0 when all ended as promised and no payment is missing. Leaves nothing
behind, not even after Ctrl-C (exit 130). For people: there is no --json.";

const INIT_NOTES: &str = "\
Asks only on a terminal; without one and without a flag, what was stored before
stays, and auto-update is off where nothing was. Exit 1 when PayRam does not run
or the API's port can be reached from outside: then nothing is stored. The
daemon works without `init`.";

/// Upgrades a self-hosted PayRam: ends verified, or exactly where it was before.
#[derive(Debug, Parser)]
#[command(name = "payram-updater", version, after_help = EXIT_CODES)]
pub(super) struct CommandLine {
    /// JSON instead of text; the default where the output is not a terminal
    #[arg(long, global = true)]
    pub json: bool,

    /// Text even where the output is not a terminal
    #[arg(long, global = true, conflicts_with = "json")]
    pub text: bool,

    /// Without one it is `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon; what happens without a command
    Serve,
    /// Show the upgrade that runs, or ran last
    Status,
    /// Ask whether the daemon answers
    Health,
    /// Show the log of the upgrade that runs, or ran last, or of another (text, also when piped)
    Logs(Logs),
    /// Show what happened, newest first
    History(History),
    /// Show which versions can be installed from here, by which route, and what stands in the way
    Versions,
    /// Show what an upgrade would do; changes nothing, exit 1 when it is refused
    DryRun(DryRun),
    /// Upgrade: plan, summary, question, progress until the end
    #[command(after_help = RUN_NOTES)]
    Run(Run),
    /// Try a version on a copy of the shop's data; PayRam serves meanwhile, nothing is stopped
    #[command(after_help = REHEARSE_NOTES)]
    Rehearse(Rehearse),
    /// Watch the upgrade that runs to its end, as `run` does
    Watch,
    /// Cancel the upgrade that runs: what it began is undone
    Cancel(Cancel),
    /// Look at everything and say what to do; exit 1 when something is broken
    Inspect(Inspect),
    /// Look at what went wrong, say what would be done about it, and do it
    Recover(Recover),
    /// Record what runs now as good, after it was put right by hand
    Sync,
    /// Make, list and restore backups of the database
    #[command(subcommand)]
    Backup(Backup),
    /// Remove what nobody needs any more; never the way back of the last upgrade
    #[command(subcommand)]
    Cleanup(Cleanup),
    /// Check whether this host is ready, and choose whether it updates by itself
    #[command(after_help = INIT_NOTES)]
    Init(Init),
    /// Show each setting, its value and where it came from; exit 1 when one is not valid
    Config(Config),
    /// Restart the daemon's systemd service and show how it is
    Restart,
    /// Check or export the journal
    #[command(subcommand)]
    Journal(Journal),
    /// Show three upgrades: a good one, a broken one, one that is killed half way
    #[command(after_help = DEMO_NOTES)]
    Demo(Demo),
    /// Run a simulated container engine; for demos and tests
    Sandbox(Sandbox),
    /// Show the version of this program
    Version,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page (roff)
    Man,
    /// Print the systemd unit, for the installer
    #[command(hide = true)]
    Unit {
        /// The launchd job instead
        #[arg(long)]
        launchd: bool,
    },
    /// Draw the machine as SVG
    #[command(hide = true)]
    Statechart,
}

/// Of `logs`.
#[derive(Debug, Default, Args)]
pub(super) struct Logs {
    /// Of this upgrade, by its id (`history` and `status` name them)
    #[arg(value_name = "JOB", conflicts_with_all = ["follow", "until_done"])]
    pub job: Option<String>,
    /// Only the last lines, so many
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u32>,
    /// Only lines since then: 2026-01-31T12:00:00Z, or 90s, 15m, 2h, 3d ago
    #[arg(long, value_name = "TIME", value_parser = super::moment::since)]
    pub since: Option<Timestamp>,
    /// Go on with new lines, and with the next upgrade when one begins
    #[arg(short, long)]
    pub follow: bool,
    /// Follow until the upgrade ends, and exit as it ended
    #[arg(long)]
    pub until_done: bool,
}

/// Of `history`.
#[derive(Debug, Args)]
pub(super) struct History {
    /// Only this type
    #[arg(long = "type", value_name = "TYPE", ignore_case = true, value_parser = crate::history::TYPES)]
    pub kind: Option<String>,
    /// Only this status
    #[arg(long, ignore_case = true, value_parser = crate::history::STATUSES)]
    pub status: Option<String>,
    /// Only events since then: 2026-01-31T12:00:00Z, or 90s, 15m, 2h, 3d ago
    #[arg(long, value_name = "TIME", value_parser = super::moment::since)]
    pub since: Option<Timestamp>,
    /// Show at most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// What `dry-run` and `run` are asked for.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// The version to go to, or latest
    #[arg(long, value_name = "VERSION")]
    pub to: String,
    /// Who decides what may be done: the policy (dashboard) or you (manual)
    #[arg(long, value_enum, ignore_case = true, default_value = "manual")]
    pub mode: ModeName,
    /// Manual mode: allow a downgrade, the same version again, to go on from a version that is not
    /// healthy, without a way back that can be verified, or to replace an image of your own
    #[arg(long)]
    pub force: bool,
}

/// Of `dry-run`.
#[derive(Debug, Args)]
pub(super) struct DryRun {
    #[command(flatten)]
    pub wanted: Wanted,
    /// Show each check, and what each disk needs
    #[arg(short, long)]
    pub verbose: bool,
}

/// Of `inspect`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Inspect {
    /// Show what is in order, too
    #[arg(short, long)]
    pub verbose: bool,
}

/// Of `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub wanted: Wanted,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// Return as soon as the upgrade has begun
    #[arg(long)]
    pub detach: bool,
    /// Only what this plan said: refused when the world has changed since (planHash of `dry-run`)
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
}

/// Of `rehearse`.
#[derive(Debug, Args)]
pub(super) struct Rehearse {
    /// The version to try, or latest; of a route with several stops, the first
    #[arg(long, value_name = "VERSION", default_value = "latest")]
    pub to: String,
    /// As `run --force`
    #[arg(long)]
    pub force: bool,
}

/// Of `cancel`.
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Of `recover`.
#[derive(Clone, Debug, Args)]
pub(super) struct Recover {
    /// Put the database back as it was before the failed version changed it, which is kept aside
    #[arg(long)]
    pub restore_database: bool,
    /// With it: carry what the failed version inserted over into that database, all of it or
    /// nothing; transactions that also changed or removed rows are left out and listed
    #[arg(long, requires = "restore_database")]
    pub carry_rows: bool,
    /// Go on with the new version after all, on the database as it is: it is started again, unless
    /// it answers, and has to pass its checks
    #[arg(long, conflicts_with = "restore_database")]
    pub keep_new: bool,
    /// Let a version that failed here be offered again; does nothing else
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["restore_database", "keep_new"])]
    pub clear_quarantine: Option<String>,
    /// Say that the rows of a failed version which this upgrade set aside are dealt with; does
    /// nothing else
    #[arg(
        long,
        value_name = "JOB",
        conflicts_with_all = ["restore_database", "keep_new", "clear_quarantine"]
    )]
    pub dismiss_rows: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// Show the whole log of the upgrade, not only what comes from here on
    #[arg(short, long)]
    pub verbose: bool,
}

/// Of `cleanup`.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Cleanup {
    /// Files in STATE_DIR that earlier upgrades left; the journal stays
    State(CleanupAsked),
    /// Backups but the newest and those that the last upgrade may need
    Backups {
        /// So many of the newest stay
        #[arg(long, value_name = "N", default_value_t = 1)]
        keep: u32,
        #[command(flatten)]
        asked: CleanupAsked,
    },
}

/// Of both.
#[derive(Clone, Debug, Args)]
pub(super) struct CleanupAsked {
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// Of `init`.
#[derive(Clone, Debug, Args)]
pub(super) struct Init {
    /// Don't ask: turn auto-update off
    #[arg(long)]
    pub no_autoupdate: bool,
    /// Don't ask: turn auto-update on
    #[arg(long, conflicts_with = "no_autoupdate")]
    pub autoupdate: bool,
    /// Hours between two looks for a new version (24 where nothing was stored)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8760))]
    pub interval_hours: Option<u32>,
}

/// Of `config`.
#[derive(Debug, Args)]
pub(super) struct Config {
    /// Print only the value of this setting
    #[arg(value_name = "KEY", conflicts_with = "example")]
    pub key: Option<String>,
    /// Print a file of settings to begin with: every one with its default
    #[arg(long)]
    pub example: bool,
}

/// Of `backup`.
#[derive(Debug, Subcommand)]
pub(super) enum Backup {
    /// Make a backup now and prove it; PayRam serves meanwhile
    Create,
    /// List the backups, newest first
    List,
    /// Put a backup back; what is there now is kept aside
    #[command(after_help = RESTORE_NOTES)]
    Restore(Restore),
}

/// Of `backup restore`.
#[derive(Clone, Debug, Args)]
pub(super) struct Restore {
    /// A path, or the name of a file in the backup directory
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Put back the version that the backup belongs to, too; not there yet
    #[arg(long, hide = true)]
    pub full_recovery: bool,
}

/// Of `demo`.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// On which container engine
    #[arg(long, value_enum, default_value = "sandbox")]
    pub engine: EngineName,
}

/// `--engine`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EngineName {
    /// A make-believe one: no Docker, no root, no network
    Sandbox,
    /// The real one, with a real PostgreSQL and stand-ins for PayRam's images: needs root
    Docker,
}

/// Of `sandbox`.
#[derive(Debug, Args)]
pub(super) struct Sandbox {
    /// Where its world is kept; made when it is not there
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where it listens: unix:PATH
    #[arg(long, value_name = "ENDPOINT")]
    pub listen: String,
    /// What it plays (JSON); without one a shop on 1.9.6 and some releases, good and broken
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
}

/// Of `journal`.
#[derive(Debug, Subcommand)]
pub(super) enum Journal {
    /// Walk the hash chain; exit 1 naming the first row that does not hold
    Verify,
    /// Print every row as a line of JSON
    Export,
}

/// `--mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeName {
    /// The policy decides
    Dashboard,
    /// You decide
    Manual,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Dashboard => Mode::Dashboard,
            ModeName::Manual => Mode::Manual,
        }
    }
}

/// Shells that completions exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve() {
        let line = CommandLine::try_parse_from(["payram-updater"]).expect("parses");
        assert!(line.command.is_none());
    }

    #[test]
    fn what_the_playbooks_say_of_backups_is_understood() {
        use crate::machine::failure::FailureCode;
        use crate::plan::playbook::{Facts, playbook};
        let mut understood = 0;
        for code in FailureCode::ALL {
            for step in playbook(code.as_str(), &Facts::default()).ssh_steps {
                let command = step.split_once(". ").map_or(step.as_str(), |(_, command)| command);
                let command = command.split("  #").next().unwrap_or_default();
                let words: Vec<&str> =
                    command.split_whitespace().skip_while(|it| *it == "sudo").collect();
                if !words.starts_with(&["payram-updater", "backup"]) {
                    continue;
                }
                let parsed = CommandLine::try_parse_from(&words);
                let is_help = parsed
                    .as_ref()
                    .is_err_and(|error| error.kind() == clap::error::ErrorKind::DisplayHelp);
                assert!(parsed.is_ok() || is_help, "{code}: {command}");
                understood += 1;
            }
        }
        assert!(understood > 5, "only {understood}");
    }

    #[test]
    fn a_mode_may_be_written_in_capitals() {
        let line = ["payram-updater", "dry-run", "--to", "latest", "--mode", "DASHBOARD"];
        match CommandLine::try_parse_from(line).expect("parses").command {
            Some(Command::DryRun(asked)) => assert_eq!(asked.wanted.mode, ModeName::Dashboard),
            other => panic!("{other:?}"),
        }
    }
}
