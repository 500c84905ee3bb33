//! `/metrics`: figures of every container as OpenMetrics text, which Prometheus and what reads its text format take. The
//! crate writes names, units and escapes as the format wants them.

use super::{
    Refusal,
    handlers::{Shared, look},
};
use crate::{
    accounts::{self, Bean, PressureNow},
    ct::limits,
    error::{Error, Result as Looked},
    manager::Manager,
    view::{self, Extent, View},
};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use std::{collections::BTreeMap, fmt};
use vz_types::{ExitCode, limits::Amount};

/// What is served; a scraper that asks for the older text format reads it too.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Figures of every container as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "application/openmetrics-text; version=1.0.0")))]
pub async fn metrics(State(ops): Shared) -> Result<Response, Refusal> {
    let text = look(&ops, |m| exposition(m)).await?;
    Ok(([(header::CONTENT_TYPE, TYPE)], text).into_response())
}

fn exposition(m: &Manager) -> Looked<String> {
    let views = view::list(m, Extent::Whole, &[])?;
    let running = views.iter().filter(|v| v.live.is_some());
    let pressure = running.filter_map(|v| Some((v.row.ctid.get(), accounts::pressure(m, v.row.ctid)?.0))).collect();
    let mut events: BTreeMap<(u32, String), u64> = BTreeMap::new();
    for e in m.inventory.events(None, 0, 10_000)?.into_iter().filter(|e| e.is_limit()) {
        *events.entry((e.ctid.get(), e.kind)).or_default() += e.count;
    }
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures { views, pressure, events, promised: limits::promised(m, None)? }));
    let mut out = String::new();
    // Writing to a String cannot fail.
    encode(&mut out, &registry).map_err(|e| Error::refused(ExitCode::System, e.to_string(), ""))?;
    Ok(out)
}

/// What was looked at, once.
struct Figures {
    views: Vec<View>,
    pressure: Vec<(u32, PressureNow)>,
    events: BTreeMap<(u32, String), u64>,
    promised: u64,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

type Pick = fn(&Bean) -> Option<u64>;

/// Of each counter: name, help, how its figure is picked, and whether it is a gauge; else it only rises.
const COUNTERS: [(&str, &str, Pick, bool); 4] = [
    ("vz_ub_held", "Held now, in the counter's unit.", |b| b.known.then_some(b.figures.held), true),
    ("vz_ub_maxheld", "Held at most since the last reset.", |b| Some(b.figures.maxheld), true),
    (
        "vz_ub_limit",
        "Limit; absent when unlimited.",
        |b| Some(b.figures.limit).filter(|n| *n != Amount::CLASSIC_UNLIMITED),
        true,
    ),
    ("vz_ub_failcnt", "Refusals since the last reset.", |b| Some(b.figures.failcnt), false),
];

impl Collector for Figures {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let running = "Whether the container runs.";
        let mut metric = out.encode_descriptor("vz_ct_running", running, None, MetricType::Gauge)?;
        for v in &self.views {
            let up = u64::from(v.live.is_some());
            ConstGauge::new(up).encode(metric.encode_family(&[("ctid", v.row.ctid.to_string())])?)?;
        }
        for (name, help, pick, gauge) in COUNTERS {
            let kind = if gauge { MetricType::Gauge } else { MetricType::Counter };
            let mut metric = out.encode_descriptor(name, help, None, kind)?;
            let all = self.views.iter().filter(|v| v.live.is_some()).flat_map(|v| v.beans.iter().map(move |b| (v, b)));
            for (v, bean) in all {
                let Some(value) = pick(bean) else { continue };
                let labels = [
                    ("ctid", v.row.ctid.to_string()),
                    ("resource", bean.ub.to_string()),
                    ("unit", bean.ub.row().unit.word().to_owned()),
                    ("class", bean.class.word().to_owned()),
                ];
                let at = metric.encode_family(&labels)?;
                if gauge { ConstGauge::new(value).encode(at)? } else { ConstCounter::new(value).encode(at)? }
            }
        }
        self.pressures(&mut out)?;
        let mut metric = out.encode_descriptor("vz_events", "Events kept, by kind.", None, MetricType::Gauge)?;
        for ((ctid, kind), count) in &self.events {
            ConstGauge::new(*count)
                .encode(metric.encode_family(&[("ctid", ctid.to_string()), ("kind", kind.clone())])?)?;
        }
        let promised = "Memory guaranteed to running containers.";
        let metric = out.encode_descriptor("vz_memory_promised", promised, Some(&Unit::Bytes), MetricType::Gauge)?;
        ConstGauge::new(self.promised).encode(metric)
    }
}

impl Figures {
    fn pressures(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let waited = "Time in which processes waited for a resource.";
        let mut metric = out.encode_descriptor("vz_pressure", waited, Some(&Unit::Seconds), MetricType::Counter)?;
        for (ctid, now) in &self.pressure {
            for (resource, p) in [("cpu", now.cpu), ("memory", now.memory), ("io", now.io)] {
                let Some(p) = p else { continue };
                for (kind, us) in [("some", p.some_total), ("full", p.full_total)] {
                    let labels =
                        [("ctid", ctid.to_string()), ("resource", resource.to_owned()), ("kind", kind.to_owned())];
                    ConstCounter::new(us as f64 / 1e6).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        let held_back = "Time processes were held back by cpulimit or cpus.";
        let mut metric =
            out.encode_descriptor("vz_cpu_throttled", held_back, Some(&Unit::Seconds), MetricType::Counter)?;
        for (ctid, now) in &self.pressure {
            let seconds = now.throttled_us as f64 / 1e6;
            ConstCounter::new(seconds).encode(metric.encode_family(&[("ctid", ctid.to_string())])?)?;
        }
        Ok(())
    }
}
