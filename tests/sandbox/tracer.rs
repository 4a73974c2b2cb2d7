//! A process that is killed at a chosen system call, without its help: before it writes the nth
//! commit to its journal, when that commit is durable, or before the nth change of a name in
//! the file system.
//!
//! By ptrace(2): every thread of it stops at every system call and goes on when this says so.
//! All requests of ptrace are one thread's, which is why each process gets one here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Where the process is killed. Counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is about to write the first byte of this commit.
    BeforeCommit(usize),
    /// The commit is synced; the process does not know it yet.
    AfterCommit(usize),
    /// It is about to rename, remove or make something.
    BeforeName(usize),
}

/// What was counted until it ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub commits: usize,
    pub names: usize,
    /// Whether it was killed at its mark.
    pub is_marked: bool,
}

/// A process under this eye. Killed when it is dropped.
pub struct Traced {
    pid: i32,
    thread: Option<JoinHandle<Counted>>,
}

impl Traced {
    /// Starts it; what it prints is appended to `log`.
    #[expect(clippy::zombie_processes, reason = "the tracer waits for it, by its id")]
    pub fn spawn(mut command: Command, log: &Path, mark: Option<Mark>) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let file = file.expect("the daemon's log");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a handle")).stderr(file);
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // Waited for by the tracer, which must be the thread that spawned it.
            let child = command.spawn().expect("the daemon starts");
            let leader = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            attach(leader).expect("ptrace(2) of a child");
            sender.send(leader.as_raw()).expect("somebody waits for it");
            Tracer { leader, mark, is_writing: false, counted: Counted::default() }.follow()
        });
        let pid = receiver.recv().expect("it was started");
        Self { pid, thread: Some(thread) }
    }

    /// Whether it is gone, at its mark or otherwise.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it where it is, if it has not ended.
    pub fn end(mut self) -> Counted {
        self.kill();
        let thread = self.thread.take().expect("it is joined once");
        thread.join().expect("the tracer does not panic")
    }

    fn kill(&self) {
        if !self.has_ended() {
            // It may be gone by now.
            kill(Pid::from_raw(self.pid), Signal::SIGKILL).ok();
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Takes hold of all threads that there are; those to come are held from their start.
fn attach(leader: Pid) -> nix::Result<()> {
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    let mut held = std::collections::BTreeSet::new();
    loop {
        let tasks = std::fs::read_dir(format!("/proc/{leader}/task"));
        let names = tasks.into_iter().flatten().flatten().map(|task| task.file_name());
        let threads: Vec<i32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
        let fresh: Vec<i32> = threads.into_iter().filter(|thread| held.insert(*thread)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for thread in fresh.into_iter().map(Pid::from_raw) {
            match ptrace::seize(thread, options) {
                Ok(()) => ptrace::interrupt(thread)?,
                // Held already, by the thread that began it; or gone.
                Err(Errno::EPERM | Errno::ESRCH) if thread != leader => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a system call is about.
enum Call {
    /// Writes to a file descriptor.
    Write(u64),
    /// Syncs one.
    Sync(u64),
    /// Renames, removes or makes something.
    Name,
}

struct Tracer {
    leader: Pid,
    mark: Option<Mark>,
    /// A commit was begun and is not synced.
    is_writing: bool,
    counted: Counted,
}

impl Tracer {
    /// To the end of the process.
    fn follow(mut self) -> Counted {
        // Of this thread's children alone, threads of theirs included.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    if !self.counted.is_marked && self.is_at_its_mark(thread) {
                        self.counted.is_marked = true;
                        // This thread stands still until the signal ends it.
                        kill(self.leader, Signal::SIGKILL).expect("SIGKILL is sent");
                    } else {
                        resume(thread, None);
                    }
                }
                Ok(WaitStatus::PtraceEvent(thread, _, _)) => resume(thread, None),
                Ok(WaitStatus::Stopped(thread, signal)) => resume(thread, Some(signal)),
                Ok(WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, _, _))
                    if ended == self.leader =>
                {
                    return self.counted;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => panic!("waitpid: {error}"),
            }
        }
    }

    fn is_at_its_mark(&mut self, thread: Pid) -> bool {
        let Some(call) = call(thread) else { return false };
        let Ok(info) = ptrace::syscall_info(thread) else { return false };
        let is_entry = info.op == libc::PTRACE_SYSCALL_INFO_ENTRY;
        match call {
            Call::Write(file) if is_entry && !self.is_writing && self.is_journal(file) => {
                self.is_writing = true;
                self.counted.commits += 1;
                self.mark == Some(Mark::BeforeCommit(self.counted.commits))
            }
            Call::Sync(file) if !is_entry && self.is_writing && self.is_journal(file) => {
                self.is_writing = false;
                self.mark == Some(Mark::AfterCommit(self.counted.commits))
            }
            Call::Name if is_entry => {
                self.counted.names += 1;
                self.mark == Some(Mark::BeforeName(self.counted.names))
            }
            Call::Write(_) | Call::Sync(_) | Call::Name => false,
        }
    }

    /// The journal's file, its write-ahead log, or its rollback journal.
    fn is_journal(&self, file: u64) -> bool {
        let link = PathBuf::from(format!("/proc/{}/fd/{file}", self.leader));
        let target = std::fs::read_link(link).unwrap_or_default();
        let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        ["journal.db", "journal.db-wal", "journal.db-journal"].contains(&name)
    }
}

/// Lets a thread go on; one that is being killed can't.
fn resume(thread: Pid, signal: Option<Signal>) {
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("let thread {thread} go on: {error}"),
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(thread: Pid) -> Option<(i64, u64)> {
    let registers = ptrace::getregs(thread).ok()?;
    Some((registers.orig_rax.cast_signed(), registers.rdi))
}

#[cfg(target_arch = "aarch64")]
fn registers(thread: Pid) -> Option<(i64, u64)> {
    let registers = ptrace::getregs(thread).ok()?;
    Some((registers.regs[8].cast_signed(), registers.regs[0]))
}

/// The call that a thread is in, if it is one that counts.
fn call(thread: Pid) -> Option<Call> {
    let (number, first) = registers(thread)?;
    match number {
        libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 | libc::SYS_pwritev => {
            Some(Call::Write(first))
        }
        libc::SYS_fsync | libc::SYS_fdatasync => Some(Call::Sync(first)),
        libc::SYS_renameat2 | libc::SYS_unlinkat | libc::SYS_mkdirat => Some(Call::Name),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_unlink
        | libc::SYS_mkdir
        | libc::SYS_rmdir => Some(Call::Name),
        _ => None,
    }
}
