use std::{path::PathBuf, process::ExitCode};

use activity_service::{app, commands, config::Config};
use clap::{CommandFactory, Parser, Subcommand};
use shared::{
    database,
    lifecycle::Exit,
    terminal::{self, Completions},
};

/// Counts what other services announce on Kafka, by day and type, and tells the figures.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// A TOML file with settings; the environment (ACTIVITY_SERVICE__...) wins over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Count activities and answer requests, until told to stop (the default)
    Serve,
    /// Bring the database's schema up to date, then end
    Migrate(database::Migrate),
    /// Print the effective settings as TOML, secrets masked
    Config,
    /// Look at messages that could not be counted, try them again or discard them
    #[command(subcommand)]
    Quarantine(commands::Quarantine),
    /// Look at what was lost before it was counted, or close it
    #[command(subcommand)]
    Gaps(commands::Gaps),
    /// See whether the figures are right
    #[command(subcommand)]
    Figures(commands::FiguresCommand),
    /// Give the business time zone another of its names
    #[command(subcommand)]
    Calendar(commands::Calendar),
    Pause(commands::Pause),
    Resume(commands::Resume),
    /// Print a script for a shell that completes commands and options
    Completions(Completions),
    /// Print the manual, as a page that man reads
    Man,
}

impl Command {
    /// The groups of settings that the command uses; none of them stands for all.
    fn needs(&self) -> &'static [&'static str] {
        match self {
            Self::Migrate(_) => &["database"],
            Self::Quarantine(_) | Self::Gaps(_) | Self::Calendar(_) | Self::Pause(_) | Self::Resume(_) => {
                &["database", "statistics"]
            }
            _ => &[],
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let arguments = Arguments::parse();
    let command = arguments.command.unwrap_or(Command::Serve);
    match &command {
        Command::Completions(completions) => return printed(Ok(completions.of(Arguments::command()))),
        Command::Man => return printed(terminal::manual(Arguments::command())),
        _ => {}
    }
    let (config, shown) = match Config::load_for(command.needs(), arguments.config.as_deref()) {
        Ok(read) => read,
        Err(mistakes) => {
            mistakes.iter().for_each(terminal::complain);
            return Exit::WrongSettings.into();
        }
    };
    shown.in_clear.iter().for_each(terminal::complain);
    if !shown.in_clear.is_empty() && !matches!(command, Command::Config) {
        return Exit::WrongSettings.into();
    }
    match command {
        Command::Serve => app::serve(config).await.into(),
        Command::Migrate(migrate) => app::migrate(&config, migrate).await.into(),
        Command::Quarantine(quarantine) => app::quarantine(&config, quarantine).await.into(),
        Command::Calendar(calendar) => app::calendar(&config, calendar).await.into(),
        Command::Gaps(gaps) => app::gaps(&config, gaps).await.into(),
        Command::Figures(figures) => app::figures(&config, figures).await.into(),
        Command::Pause(pause) => app::pause(&config, pause).await.into(),
        Command::Resume(resume) => app::resume(&config, resume).await.into(),
        Command::Config => printed(Ok(shown.text)),
        Command::Completions(_) | Command::Man => Exit::Stopped.into(),
    }
}

fn printed(text: std::io::Result<String>) -> ExitCode {
    match text.and_then(|text| terminal::print(&text)) {
        Ok(()) => Exit::Stopped.into(),
        Err(error) => {
            terminal::complain(format_args!("standard output: {error}"));
            Exit::Failed.into()
        }
    }
}
