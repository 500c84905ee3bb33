//! What is printed as a table: the host check and the OS templates.

use crate::{
    failure::{Failure, Outcome},
    progress::{self, Awaited},
    ui,
    verbs::Session,
};
use comfy_table::{Table, presets};
use indicatif::ProgressBar;
use vz_api::wire::{BuildEvent, BuildRequest, CheckItem, TemplateInfo};
use vz_types::{ExitCode, Fact, TemplateName, limits::amount::column, time::utc};

/// Rows without lines around them; nothing is folded when nobody looks, so that `grep` finds it.
pub fn table(header: &[&str]) -> Table {
    let mut t = Table::new();
    t.load_style(presets::NOTHING);
    t.set_header(header.to_vec());
    t
}

/// As text. At a terminal that is too narrow for it no number or name is broken: see [`fold`].
pub fn text(mut t: Table) -> String {
    t.column_iter_mut().for_each(|c| _ = c.set_padding((0, 2)));
    let lines: Vec<String> = t.lines().map(|l| l.trim_end().to_owned()).collect();
    match ui::columns() {
        Some(most) if lines.iter().any(|l| l.chars().count() > most) => {
            let cells = |row: &comfy_table::Row| row.cell_iter().map(|c| c.content()).collect::<Vec<_>>();
            let header = t.header().map(cells).unwrap_or_default();
            fold(&header, &t.row_iter().map(cells).collect::<Vec<_>>(), most).join("\n")
        }
        _ => lines.join("\n"),
    }
}

/// Room from which free text in the last column is folded there and not below its row, if its longest word fits too.
const ROOM: usize = 24;

/// A table in `most` columns: the first columns that fit stay, the last one is folded between words where it has room, and
/// what has none stands below its row with its heading.
fn fold(header: &[String], rows: &[Vec<String>], most: usize) -> Vec<String> {
    let widths: Vec<usize> = (0..header.len())
        .map(|n| rows.iter().chain([&header.to_vec()]).map(|r| ui::width(&r[n])).max().unwrap_or(0))
        .collect();
    let (mut kept, mut used) = (0, 0);
    while kept < widths.len() && used + widths[kept] <= most {
        used += widths[kept] + 2;
        kept += 1;
    }
    let words = rows.iter().filter_map(|r| r.last()).flat_map(|text| text.split(' '));
    let room = words.map(ui::width).fold(ROOM, usize::max);
    let folded = kept + 1 == widths.len() && used + room <= most;
    let line = |cells: &[String]| -> Vec<String> {
        let mut head: String =
            cells.iter().zip(&widths).take(kept).map(|(text, width)| ui::padded(text, *width) + "  ").collect();
        if !folded {
            head.truncate(head.trim_end().len());
            return vec![head];
        }
        ui::wrap(&head, &cells[kept], used, most)
    };
    let mut out = line(header);
    for row in rows {
        out.extend(line(row));
        let below = if folded { widths.len() } else { kept };
        let mut rest = String::new();
        for (name, cell) in header.iter().zip(row).skip(below).filter(|(_, cell)| !cell.is_empty()) {
            let one = format!("{name}: {cell}");
            if !rest.is_empty() && 4 + ui::width(&rest) + 3 + ui::width(&one) > most {
                out.extend(ui::wrap("    ", &std::mem::take(&mut rest), 6, most));
            }
            rest = if rest.is_empty() { one } else { format!("{rest}   {one}") };
        }
        if !rest.is_empty() {
            out.extend(ui::wrap("    ", &rest, 6, most));
        }
    }
    out
}

/// `check`: exit 0 if containers can run here, else 3.
pub fn check(session: &Session) -> Outcome {
    let report = session.client.check()?;
    let code = if report.ok { ExitCode::Ok } else { ExitCode::System }.code();
    if session.ui.json {
        session.ui.object(&report)?;
        return Ok(code);
    }
    let mut t = table(&["GROUP", "CHECKED", "STATUS", "FOUND"]);
    for i in &report.items {
        t.add_row(vec![i.group.as_str(), &i.name, &i.status, &i.found]);
    }
    session.ui.data(&text(t));
    let gaps: Vec<&CheckItem> = report.items.iter().filter(|i| i.status != "ok").collect();
    if !gaps.is_empty() {
        session.ui.data("");
    }
    for i in gaps {
        let loss = i.loss.as_deref().unwrap_or("something will not work");
        session.ui.data(&format!("{} {} ({}): {loss}", i.group, i.name, i.status));
        if let Some(remedy) = &i.remedy {
            session.ui.data(&format!("    remedy: {remedy}"));
        }
    }
    session.ui.data("");
    session.ui.data(match report.ok {
        true => "Containers can run on this host.",
        false => "Containers cannot run on this host.",
    });
    Ok(code)
}

/// A path is no name; it cannot be that of a template either.
pub fn name(text: &str) -> Result<String, Failure> {
    let name: TemplateName = text.parse().map_err(|e: vz_types::names::NameError| {
        Failure::new(ExitCode::NoTemplate, e.to_string()).hint("`vzctl template list` shows the names")
    })?;
    Ok(name.to_string())
}

fn or_dash(v: Option<impl ToString>) -> String {
    v.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// `template list`.
pub fn template_list(session: &Session) -> Outcome {
    let all = session.client.templates()?;
    if session.ui.json {
        session.ui.object(&all)?;
        return Ok(0);
    }
    let mut t = table(&["NAME", "STATUS", "DISTRIBUTION", "INIT", "ARCH", "SIZE", "USED BY", "ORIGIN", "MADE"]);
    for i in &all {
        t.add_row(vec![
            i.name.clone(),
            i.status.clone(),
            or_dash(i.distribution.as_ref()),
            or_dash(i.init.as_ref()),
            or_dash(i.arch.as_ref()),
            or_dash(i.size.map(column)),
            i.used_by.len().to_string(),
            or_dash(i.origin.as_ref()),
            or_dash(i.built_at.map(|t| utc(t).split(' ').next().unwrap_or_default().to_owned())),
        ]);
    }
    session.ui.data(&text(t));
    for i in all.iter().filter(|i| i.problem.is_some()) {
        session.ui.warn(&format!("WARNING: OS template {}: {}", i.name, or_dash(i.problem.as_ref())));
    }
    Ok(0)
}

/// `template show`.
pub fn template_show(session: &Session, typed: &str) -> Outcome {
    let info = session.client.template(&name(typed)?)?;
    if session.ui.json {
        session.ui.object(&info)?;
    } else {
        print_template(session, &info, true);
    }
    Ok(0)
}

/// All about a template, with its packages if wanted.
pub fn print_template(session: &Session, i: &TemplateInfo, packages: bool) {
    let imported = i.origin.as_deref() == Some("import");
    let used: Vec<String> = i.used_by.iter().map(u32::to_string).collect();
    let rows: &[(&str, String)] = &[
        ("Name", i.name.clone()),
        ("Status", i.status.clone()),
        ("Problem", i.problem.clone().unwrap_or_default()),
        ("Description", i.description.clone().unwrap_or_default()),
        ("Distribution", or_dash(i.distribution.as_ref())),
        ("Init", or_dash(i.init.as_ref())),
        ("Architecture", or_dash(i.arch.as_ref())),
        ("Size", or_dash(i.size.map(column))),
        ("Files", or_dash(i.files)),
        (if imported { "Imported" } else { "Built" }, or_dash(i.built_at.map(utc))),
        ("Origin", or_dash(i.origin.as_ref())),
        ("Source", i.source.clone().unwrap_or_default()),
        ("Archive", i.archive.as_ref().map_or_else(String::new, |d| format!("sha256:{d}"))),
        ("Digest", or_dash(i.digest.as_ref().map(|d| format!("sha256:{}", d.trim_start_matches("sha256:"))))),
        ("Used by", if used.is_empty() { "no CT".into() } else { used.join(" ") }),
    ];
    for (key, value) in rows.iter().filter(|(_, v)| !v.is_empty()) {
        session.ui.data(&format!("{:<13} {value}", format!("{key}:")));
    }
    if packages && !i.packages.is_empty() {
        session.ui.data(&format!("{:<13} {}", "Packages:", i.packages.len()));
        for p in &i.packages {
            session.ui.data(&format!("  {p}"));
        }
    }
}

/// `template remove`.
pub fn template_remove(session: &Session, typed: &str) -> Outcome {
    let name = name(typed)?;
    let answer = session.change(&format!("Removing OS template {name}"), |c| c.remove_template(&name));
    session.finish(answer, &[], &[&format!("OS template {name} was removed")])
}

/// `template build`: a bar at a terminal, stages else, the whole log with --verbose.
pub fn template_build(session: &Session, typed: &str, rebuild: bool) -> Outcome {
    let name = name(typed)?;
    let ui = session.ui;
    let awaited = Awaited { id: progress::number(), words: format!("Building OS template {name}"), watched: false };
    let client = session.client.numbered(awaited.id);
    if session.background {
        return session.finish(client.begin_build(&name, &BuildRequest { rebuild }), &[], &[]);
    }
    ui.say(&awaited.words);
    let bar = ui.bar();
    let mut staged = false;
    let built = progress::told_itself(&client, &awaited, &bar, || {
        client.build(&name, &BuildRequest { rebuild }, |event| {
            staged |= matches!(event, BuildEvent::Stage { stage, .. } if stage != "done");
            show(&ui, &bar, event);
        })
    });
    bar.finish_and_clear();
    let built = built?;
    if ui.json {
        ui.object(&built)?;
    } else {
        // Nothing was done but to look.
        let is = (!staged).then(|| session.client.operation(&awaited.id.to_string()).ok()).flatten();
        let already = is.is_some_and(|o| o.facts.contains(&Fact::BuiltAlready));
        ui.say(&match already {
            true => format!("OS template {name} is there already; --rebuild builds it anew"),
            false => format!("OS template {name} was built"),
        });
        if !ui.quiet {
            print_template(session, &built, false);
        }
    }
    Ok(0)
}

/// One event of a build or an import, on the bar or as a line.
pub fn show(ui: &crate::ui::Ui, bar: &ProgressBar, event: &BuildEvent) {
    match event {
        BuildEvent::Stage { stage, percent } => {
            bar.set_position(u64::from(*percent));
            bar.set_message(stage.clone());
            if bar.is_hidden() {
                ui.say(&format!("{percent:>3} % {stage}"));
            }
        }
        BuildEvent::Log { line } => {
            // What the build prints could steer a terminal.
            let line = crate::ui::plain(line);
            if ui.verbose {
                bar.suspend(|| ui.say(&format!("  {line}")));
            }
            bar.set_message(line);
        }
        BuildEvent::Done { .. } | BuildEvent::Failed { .. } => {}
    }
}
