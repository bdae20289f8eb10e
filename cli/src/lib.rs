//! The `treering` command: arguments in, text and exit codes out.
//!
//! Each verb is one file that reads its input with `ingest`, calls the public surface of `treering`
//! and prints. Data goes to standard output, messages and the progress bar to standard error.
//! Nothing here knows how a store works. A library only so that fuzz targets and tests reach the
//! readers; a program that wants an index uses `treering`.

mod args;
mod context;
mod exit;
mod failure;
mod human;
mod ingest;
mod made;
mod output;
mod pace;
mod progress;

mod backup;
mod bench;
mod build;
mod compact;
mod delete;
mod demo;
mod diff;
mod expire;
mod export;
mod get;
mod insert;
mod log;
mod query;
mod receive;
mod recover;
mod restore;
mod stats;
mod tag;
mod vacuum;
mod verify;

#[doc(hidden)]
pub mod readers;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use args::{Cli, Verb};
use context::Context;
use failure::Failure;

use treering::files::publish;
use treering::files::waiting::is_stopped;

/// Runs the command that the process was started as, and says how it ended.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version, too, come this way. A closed terminal is no reason to panic.
            if e.use_stderr() && std::env::args_os().any(|word| word == "--json") {
                tell(true, e.to_string().trim_end(), exit::USAGE);
            } else {
                let _ = e.print();
            }
            return ExitCode::from(if e.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    if publish::prints_into_a_store() {
        // Not even a message may go there.
        return ExitCode::from(exit::USAGE);
    }
    let context = Context::new(&cli.global);
    context.catch_interrupts();
    match dispatch(&context, &cli.verb) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            let failure = if is_stopped(&failure) { Failure::Interrupted } else { failure };
            let code = exit::code(&failure);
            if !failure.is_closed_pipe() {
                tell(context.json, &failure.to_string(), code);
            }
            ExitCode::from(code)
        }
    }
}

/// Says on standard error why the command ends as it does: a line, or with `--json` an object.
fn tell(json: bool, message: &str, code: u8) {
    let text = match json {
        true => {
            let error = json!({ "kind": exit::kind(code), "message": message, "exit": code });
            output::json_text(&json!({ "error": error }))
        }
        false => format!("error: {}\n", human::printable(message)),
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn dispatch(context: &Context, verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Demo => demo::run(context),
        Verb::Build(args) => build::run(context, args),
        Verb::Insert(args) => insert::run(context, args),
        Verb::Delete(args) => delete::run(context, args),
        Verb::Compact(args) => compact::run(context, args),
        Verb::Query(args) => query::run(context, args),
        Verb::Get(args) => get::run(context, args),
        Verb::Export(args) => export::run(context, args),
        Verb::Log(args) => log::run(context, args),
        Verb::Diff(args) => diff::run(context, args),
        Verb::Tag(args) => tag::run(context, args),
        Verb::Restore(args) => restore::run(context, args),
        Verb::Expire(args) => expire::run(context, args),
        Verb::Backup(args) => backup::run(context, args),
        Verb::Receive(args) => receive::run(context, args),
        Verb::Vacuum(args) => vacuum::run(context, args),
        Verb::Recover(args) => recover::run(context, args),
        Verb::Verify(args) => verify::run(context, args),
        Verb::Stats(args) => stats::run(context, args),
        Verb::Bench(args) => bench::run(context, args),
    }
}
