//! What a command prints: for people, for pipes that close early, and for shells.

use std::io::{self, ErrorKind, Write};

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

/// Prints to standard output, and ends the line if it is not ended.
///
/// # Errors
/// Standard output cannot be written. A pipe whose reader has seen enough is no error.
pub fn print(text: &str) -> io::Result<()> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = io::stdout().lock();
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// How wide the terminal is, in characters; none where standard output is no terminal, or `COLUMNS` says nothing.
#[must_use]
pub fn width() -> Option<u16> {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let found = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col);
    told.or_else(found).filter(|width| *width > 0)
}

/// Tells the operator what is wrong. Where nobody can be told there is nothing else to do.
pub fn complain(line: impl std::fmt::Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Output that nobody has to read to its end: what is written after its reader has gone goes nowhere. For work that is worth
/// its end, or its exit code, all the same.
#[derive(Debug)]
pub struct ToWhoeverReads<W>(pub W);

impl<W: Write> Write for ToWhoeverReads<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

/// Whether this is about the reader of standard output having gone: no failure of ours. A connection to the database
/// breaks in the same way.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    if error.chain().any(|cause| cause.is::<sqlx::Error>()) {
        return false;
    }
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.map(io::Error::kind).any(|kind| kind == ErrorKind::BrokenPipe)
}

/// What packages install beside the program.
#[derive(Args, Clone, Copy, Debug)]
pub struct Completions {
    /// For this shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// The script that completes the commands and options of `program`.
    #[must_use]
    pub fn of(self, mut program: Command) -> String {
        let (name, mut script) = (program.get_name().to_owned(), Vec::new());
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }

    /// The shells that there are scripts for.
    #[must_use]
    pub fn shells() -> &'static [Shell] {
        Shell::value_variants()
    }
}

/// The manual of `program`: a page for itself and for each of its commands, one behind the other.
///
/// # Errors
/// None that memory does not have.
pub fn manual(program: Command) -> io::Result<String> {
    let mut pages = Vec::new();
    let mut program = program.disable_help_subcommand(true);
    program.build();
    page(&program, &mut pages)?;
    Ok(String::from_utf8_lossy(&pages).into_owned())
}

fn page(program: &Command, pages: &mut Vec<u8>) -> io::Result<()> {
    clap_mangen::Man::new(program.clone()).render(pages)?;
    program.get_subcommands().try_for_each(|command| page(command, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_is_no_reader_that_has_gone() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&anyhow::Error::from(broken()).context("printing")));
        assert!(!is_closed_pipe(&anyhow::Error::from(sqlx::Error::Io(broken())).context("asking")));
    }
}
