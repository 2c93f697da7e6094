// To be written.
export class Patching {
  static TITLE = "Patching";

  constructor(root, page) {
    Object.assign(this, { root, page });
  }

  async update() {}
}
