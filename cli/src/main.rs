//! The process of the `treering` command; what it does is in the library beside it.

#[cfg(unix)]
mod out_of_memory;

fn main() -> std::process::ExitCode {
    #[cfg(unix)]
    out_of_memory::prepare();
    treering_cli::run()
}
