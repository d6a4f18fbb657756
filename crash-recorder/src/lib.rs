//! Records what a process does to the files below one folder, so that a test can make the disks a power cut could leave.
//!
//! Loaded with `LD_PRELOAD`. The environment says what it does:
//!
//! | variable | meaning |
//! |---|---|
//! | `MUSTER_CRASH_DIR` | the folder that is watched, absolute and without links; without it every call just passes |
//! | `MUSTER_CRASH_RECORD` | the file the record is appended to; it lies outside the folder and is one process's alone |
//! | `MUSTER_CRASH_FAIL_SYNC` | while this file exists, the next sync of something watched fails once with `EIO`, and the file is removed |
//!
//! The record is a sequence of events in one order over all threads: a kind (one byte), the length of the rest (u32), the
//! rest. Integers are little-endian; a path is relative to the folder; `id` names a file or folder whatever its names are.
//!
//! | kind | event | rest |
//! |---|---|---|
//! | 1 | something that was there before the record began | id (u64), path |
//! | 2 | a file was created | id, path |
//! | 3 | a folder was created | id, path |
//! | 4 | bytes were written | id, offset (u64), bytes |
//! | 5 | the length was set | id, length (u64) |
//! | 6 | a rename | length of the first path (u32), from, to |
//! | 7 | a name was removed | path |
//! | 8 | a second name was made | as 6 |
//! | 9 | a sync began | token (u64), id, or all ones for everything |
//! | 10 | a sync ended | token, 1 if it succeeded |
//! | 11 | the process put a mark | its bytes |
//! | 12 | a call whose effects the record cannot hold | what it was |
//!
//! A sync covers what was written before it began and counts from when it ended. `sync_file_range` promises nothing after a
//! power cut, so it is no event. Only calls through the C library are seen: whoever makes a record compares the folder with
//! the record played to its end. `openat2` and `syscall` itself are among what only that comparison notices.

#![allow(clippy::missing_safety_doc, reason = "the contract of every call is the C library's")]

mod calls;
mod paths;
mod record;
mod watch;
