//! A deterministic network that runs the very same machines: clock, links, churn, adversaries.
