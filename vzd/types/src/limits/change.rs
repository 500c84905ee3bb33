//! What a request changes of a container's limits: options with their texts, each checked on its own.

use super::{
    amount::{Amount, LimitError, Pair, parse_amount},
    config::{CpuConfig, CpuLimit, CpuUnits, Cpus, IoConfig, IoLimit, IoPrio, Iops, LimitsConfig, Mask, Overcommit},
    table::{COUNTERS, PARAMETERS, Ub, Unit},
};
use crate::CtConfig;
use std::{collections::BTreeMap, str::FromStr};

/// Changes to `[limits]`, `[cpu]` and `[io]`. `None`: as it is; an inner `None`: not set any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges {
    counters: BTreeMap<Ub, Pair>,
    overcommit: Option<Option<Overcommit>>,
    units: Option<CpuUnits>,
    limit: Option<Option<CpuLimit>>,
    cpus: Option<Option<Cpus>>,
    mask: Option<Option<Mask>>,
    nodemask: Option<Option<Mask>>,
    prio: Option<IoPrio>,
    iolimit: Option<Option<IoLimit>>,
    iops: Option<Option<Iops>>,
}

/// A value for which one word means "none".
fn none_or<T: FromStr<Err = LimitError>>(value: &str, none: &str) -> Result<Option<T>, LimitError> {
    if value.trim() == none { Ok(None) } else { value.parse().map(Some) }
}

impl LimitChanges {
    /// Every option's name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        COUNTERS.iter().map(|c| c.name).chain(PARAMETERS.iter().map(|p| p.name))
    }

    /// Takes one option as typed.
    ///
    /// # Errors
    /// Names the option, the value and the accepted form.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        match name {
            "ram" => self.memory(Ub::Physpages, name, value)?,
            "swap" => self.memory(Ub::Swappages, name, value)?,
            "vm_overcommit" => self.overcommit = Some(none_or(value, "0")?),
            "cpuunits" => self.units = Some(value.parse()?),
            "cpulimit" => {
                self.limit = Some(
                    none_or(value.trim().trim_end_matches('%'), "0")
                        .map_err(|e| LimitError { value: value.into(), ..e })?,
                )
            }
            "cpus" => self.cpus = Some(none_or(value, "0")?),
            "cpumask" => self.mask = Some(mask(name, value)?),
            "nodemask" => self.nodemask = Some(mask(name, value)?),
            "ioprio" => self.prio = Some(value.parse()?),
            "iolimit" => {
                self.iolimit = Some(if value.trim() == "0" { None } else { Some(IoLimit::from_command_line(value)?) });
            }
            "iopslimit" => self.iops = Some(none_or(value, "0")?),
            _ => {
                let ub: Ub = name.parse().map_err(|why: String| LimitError::new(name, value, why))?;
                self.counters.insert(ub, Pair::parse(ub, value)?);
            }
        }
        Ok(())
    }

    /// `--ram` and `--swap`: the limit alone, in bytes with or without a suffix.
    fn memory(&mut self, ub: Ub, name: &str, value: &str) -> Result<(), LimitError> {
        let bad = |why: String| LimitError::new(name, value, why);
        let form = "write an amount of memory like 512M or 1.5G, or unlimited";
        // Bytes, not pages, when there is no suffix: as vzctl has it.
        let amount = parse_amount(value, Unit::Bytes)
            .map_err(|e| bad(format!("{}; {form}", e.split(';').next().unwrap_or_default())))?;
        let text = match amount {
            Amount::At(n) => format!("0:{n}B"),
            Amount::Unlimited => "0:unlimited".into(),
        };
        let pair = Pair::parse(ub, &text).map_err(|e| bad(e.why))?;
        self.counters.insert(ub, pair);
        Ok(())
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The counters that are named.
    pub fn counters(&self) -> impl Iterator<Item = Ub> {
        self.counters.keys().copied()
    }

    /// Makes the changes.
    pub fn apply(&self, c: &mut CtConfig) {
        self.apply_to(&mut c.limits, &mut c.cpu, &mut c.io);
    }

    fn apply_to(&self, limits: &mut LimitsConfig, cpu: &mut CpuConfig, io: &mut IoConfig) {
        fn put<T: Clone>(field: &mut Option<T>, change: &Option<Option<T>>) {
            if let Some(value) = change {
                field.clone_from(value);
            }
        }
        limits.counters.extend(self.counters.iter().map(|(ub, pair)| (*ub, *pair)));
        put(&mut limits.vm_overcommit, &self.overcommit);
        put(&mut cpu.units, &self.units.map(Some));
        put(&mut cpu.limit, &self.limit);
        put(&mut cpu.cpus, &self.cpus);
        put(&mut cpu.mask, &self.mask);
        put(&mut cpu.nodemask, &self.nodemask);
        put(&mut io.prio, &self.prio.map(Some));
        put(&mut io.limit, &self.iolimit);
        put(&mut io.iops, &self.iops);
    }
}

fn mask(name: &str, value: &str) -> Result<Option<Mask>, LimitError> {
    if value.trim() == "all" { Ok(None) } else { Mask::parse(name, value).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(options: &[(&str, &str)]) -> CtConfig {
        let mut changes = LimitChanges::default();
        for (name, value) in options {
            changes.set(name, value).unwrap_or_else(|e| panic!("{e}"));
        }
        let mut c: CtConfig = toml::from_str("ostemplate = 'x'").unwrap();
        changes.apply(&mut c);
        c
    }

    #[test]
    fn ram_and_swap_are_pages_rounded_up() {
        let c = applied(&[("ram", "512M"), ("swap", "1.1G")]);
        assert_eq!(c.limits.get(Ub::Physpages).show(Ub::Physpages), "0:512M");
        assert_eq!(c.limits.get(Ub::Swappages).limit, Amount::At(288_359));
        assert!(c.limits.vswap());
        // 268435457 bytes need one page more.
        assert_eq!(applied(&[("ram", "268435457")]).limits.get(Ub::Physpages).limit, Amount::At(65_537));
    }

    #[test]
    fn the_words_for_no_limit_take_a_limit_away() {
        let c = applied(&[
            ("cpulimit", "50%"),
            ("cpulimit", "0"),
            ("cpus", "0"),
            ("cpumask", "all"),
            ("iolimit", "0"),
            ("iopslimit", "0"),
            ("vm_overcommit", "0"),
            ("ram", "unlimited"),
        ]);
        assert_eq!(c.cpu, CpuConfig::default());
        assert_eq!(c.io, IoConfig::default());
        assert!(!c.limits.vswap());
    }

    #[test]
    fn every_bad_value_is_named_with_its_option() {
        for (name, value) in [
            ("ram", "-1"),
            ("ram", "0"),
            ("ram", "1M"),
            ("ram", "99999T"),
            ("ram", "9223372036854775808"),
            ("ram", "x"),
            ("swap", "-1"),
            ("ram", "1:2"),
            ("vm_overcommit", "-1"),
            ("vm_overcommit", "unlimited"),
            ("cpuunits", "unlimited"),
            ("cpuunits", "7"),
            ("cpuunits", "500001"),
            ("cpulimit", "-1"),
            ("cpulimit", "unlimited"),
            ("cpulimit", "1.5"),
            ("cpus", "-2"),
            ("cpus", "unlimited"),
            ("cpumask", ""),
            ("cpumask", "1-"),
            ("cpumask", "3-1"),
            ("cpumask", "a"),
            ("cpumask", "unlimited"),
            ("cpumask", "99999"),
            ("nodemask", "x"),
            ("ioprio", "8"),
            ("ioprio", "-1"),
            ("ioprio", "unlimited"),
            ("iolimit", "-1"),
            ("iolimit", "unlimited"),
            ("iolimit", "1B"),
            ("iopslimit", "-1"),
            ("iopslimit", "4294967296"),
            ("nosuchpages", "1"),
            ("numproc", "10M"),
        ] {
            let e = LimitChanges::default().set(name, value).expect_err(&format!("{name} {value}")).to_string();
            assert!(e.starts_with(&format!("{name} `{value}`: ")), "{e}");
        }
    }
}
