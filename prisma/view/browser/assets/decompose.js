// To be written.
export class Decompose {
  static TITLE = "Decompose";

  constructor(root, page) {
    Object.assign(this, { root, page });
  }

  async update() {}
}
