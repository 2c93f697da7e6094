// To be written.
export class Training {
  static TITLE = "Training";

  constructor(root, page) {
    Object.assign(this, { root, page });
  }

  async update() {}
}
