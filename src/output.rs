//! What commands print: tables for people, JSON and YAML of the same content for programs.

use std::process::ExitCode;

use serde::Serialize;

use crate::{exit, table::Screen};

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// How to print.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Output {
    /// Print as
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table",
        env = "FAIRLEAD_OUTPUT"
    )]
    pub(crate) output: Format,
}

impl Output {
    /// Prints a report; `show` writes it for people and is told whether they want more.
    pub(crate) fn print<T: Serialize>(
        self,
        report: &T,
        show: impl FnOnce(&T, Screen, bool) -> String,
    ) -> anyhow::Result<ExitCode> {
        let text = match self.output {
            Format::Table => show(report, Screen::of_output(), false),
            Format::Wide => show(report, Screen::of_output(), true),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(report)?),
            Format::Yaml => serde_saphyr::to_string(report)?,
        };
        exit::print(&text)
    }

    /// One of many reports that follow each other: JSON lines, YAML documents.
    pub(crate) fn line<T: Serialize>(
        self,
        report: &T,
        show: impl FnOnce(&T, Screen, bool) -> String,
    ) -> anyhow::Result<String> {
        Ok(match self.output {
            Format::Table => show(report, Screen::of_output(), false),
            Format::Wide => show(report, Screen::of_output(), true),
            Format::Json => format!("{}\n", serde_json::to_string(report)?),
            Format::Yaml => format!("---\n{}", serde_saphyr::to_string(report)?),
        })
    }
}
