// To be written.
export class Lens {
  static TITLE = "Logit lens";

  constructor(root, page) {
    Object.assign(this, { root, page });
  }

  async update() {}
}
