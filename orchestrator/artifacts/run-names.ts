/** Names that cannot leave their folder or prefix, whatever a caller or a user gives. */
export function checkedName(what: string, name: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) {
    throw new TypeError(
      `${what}: expected 1 to 128 letters, digits, ".", "_" or "-", a letter or digit first; got "${name}"`,
    );
  }
  return name;
}
