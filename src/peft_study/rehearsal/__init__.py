"""Rehearsals: any study, whole, in minutes, made tiny; and a forecast of the real one."""
